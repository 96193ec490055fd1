"""A dataset as its reader returns it, before it is resized, split and sealed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


UNLABELLED = -1  # in place of a class number


@dataclass(frozen=True)
class RawImages:
    """Arrays: uint8 images `(N, H, W, C)` and labels `(N,)`.

    Attributes:
        test_images, test_labels: None if the test images are split off the training images.
        extra_images: further training images; None if there are none.
        extra_labels: theirs, used with `data.labelled: all`; None if they have none.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8] | None
    test_labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    extra_images: NDArray[np.uint8] | None = None
    extra_labels: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Listing:
    """Image files below a folder, and their class numbers."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class RawFiles:
    """One file per image, none of them read yet.

    Attributes:
        root: the folder that `paths` are relative to.
        train: the training images.
        validation, test: the dataset's own; None if they are split off the training images.
        classes: names by number.
        unlabelled: further training images, with -1 as their labels; None if there are none.
        ignored: the number of files whose names are not those of images.
    """

    root: Path
    train: Listing
    validation: Listing | None
    test: Listing | None
    classes: tuple[str, ...]
    unlabelled: Listing | None = None
    ignored: int = 0
