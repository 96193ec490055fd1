"""The datasets by name. A new dataset is one entry.

Readers import their libraries when called: `configure` needs only the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from meal.datasets import bundled, folders, published
from meal.datasets.raw import RawFiles, RawImages


@dataclass(frozen=True)
class Dataset:
    """How a dataset is read, and what is known about it in advance.

    Attributes:
        title: its name in reports.
        read: from a folder (`data.root`, or None) to its images.
        flip: whether a mirrored image still shows its class (`views.flip: auto`).
        files: whether it is one file per image, which may stay in place (`data.store`).
        classes: the number of classes, to check parameters before anything runs.
        image_size: the default size in pixels to which images are resized; None keeps their size.
        unlabelled: whether it may hold images without labels.
        test_fraction: of the images, if it has no test set of its own (`data.test_fraction`).
        note: a caveat for readers of its results.
        licence: of its images, for the card of a student that is exported.
    """

    title: str
    read: Callable[[Path | None], RawImages | RawFiles]
    flip: bool
    files: bool = False
    classes: int | None = None
    image_size: int | None = None
    unlabelled: bool = False
    test_fraction: float = 0.2
    note: str = ""
    licence: str = "not known"


_SVHN = "for non-commercial use only"

DATASETS: dict[str, Dataset] = {
    "digits": Dataset(
        "scikit-learn digits",
        bundled.digits,
        flip=False,
        classes=10,
        image_size=16,
        test_fraction=0.5,
        note="small: one test image is a tenth of a point",
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
    ),
    "fashion_mnist": Dataset(
        "Fashion-MNIST", published.fashion_mnist, flip=True, classes=10, licence="MIT"
    ),
    "cifar10": Dataset("CIFAR-10", published.cifar10, flip=True, classes=10),
    "cifar100": Dataset("CIFAR-100", published.cifar100, flip=True, classes=100),
    "svhn": Dataset("SVHN", published.svhn, flip=False, classes=10, licence=_SVHN),
    "svhn_extra": Dataset(
        "SVHN with its extra set", published.svhn_extra, flip=False, classes=10, licence=_SVHN
    ),
    "stl10": Dataset("STL-10", published.stl10, flip=True, classes=10, unlabelled=True),
    "imagenet": Dataset(
        "ImageNet (ILSVRC 2012)",
        folders.imagenet,
        flip=True,
        files=True,
        classes=1000,
        image_size=224,
        note="its validation images are the test images here",
        licence="ImageNet's terms of access: non-commercial research and education",
    ),
    "folder": Dataset(
        "folder of images",
        folders.folder,
        flip=True,
        files=True,
        unlabelled=True,
        licence="not stated: a folder of the user's own",
    ),
}
