"""Where images come from. A new dataset is one entry in `SOURCES`.

Readers import their libraries when called: `configure` needs the table alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from meal.data.sources import bundled, folders, published
from meal.data.sources.raw import RawFiles, RawImages


@dataclass(frozen=True)
class Source:
    """How a dataset is read, and what is known of it beforehand.

    Attributes:
        title: its name in reports.
        read: from a folder (`data.root`, or None) to its images.
        flip: whether a mirrored image still shows its class (`views.flip: auto`).
        files: whether it is one file an image, which may stay where it is (`data.store`).
        classes: how many there are, to check parameters before anything runs.
        image_size: pixels to which images are resized by default; None keeps them.
        note: what a reader of its results must know.
    """

    title: str
    read: Callable[[Path | None], RawImages | RawFiles]
    flip: bool
    files: bool = False
    classes: int | None = None
    image_size: int | None = None
    note: str = ""


SOURCES: dict[str, Source] = {
    "digits": Source(
        "scikit-learn digits",
        bundled.digits,
        flip=False,
        classes=10,
        image_size=16,
        note="a smoke run: 360 test images, one of which is 0.28 points",
    ),
    "fashion_mnist": Source("Fashion-MNIST", published.fashion_mnist, flip=True, classes=10),
    "cifar10": Source("CIFAR-10", published.cifar10, flip=True, classes=10),
    "cifar100": Source("CIFAR-100", published.cifar100, flip=True, classes=100),
    "svhn": Source("SVHN", published.svhn, flip=False, classes=10),
    "svhn_extra": Source("SVHN with its extra set", published.svhn_extra, flip=False, classes=10),
    "imagenet": Source(
        "ImageNet (ILSVRC 2012)",
        folders.imagenet,
        flip=True,
        files=True,
        classes=1000,
        image_size=224,
        note="its validation images are the test images here",
    ),
    "folder": Source("folder of images", folders.folder, flip=True, files=True),
}
