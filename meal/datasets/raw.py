"""A dataset as its reader returns it, before it is resized, split and sealed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class RawImages:
    """Arrays: uint8 images `(N, H, W, C)` and labels `(N,)`."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]


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
        ignored: the number of files whose names are not those of images.
    """

    root: Path
    train: Listing
    validation: Listing | None
    test: Listing | None
    classes: tuple[str, ...]
    ignored: int = 0
