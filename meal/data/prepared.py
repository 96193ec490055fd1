"""What `prepare` leaves on disk: three splits, and a manifest that seals them.

A split is an array of pixels, or an index of image files that stay where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from meal.data.stores import ArrayStore, FileStore, ImageStore
from meal.files import check_file, named_folder, read_sealed, user_folder

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Split = Literal["train", "validation", "test"]

MEND = "mend it with: dvc repro prepare"


@dataclass(frozen=True)
class Prepared:
    """The prepared data. Splits are read when asked for.

    Attributes:
        folder: where arrays and indices lie.
        manifest: dataset, classes, counts, store, shape, mean, deviation, file checksums, and what
            was found on the way.
        root: where image files lie, for those that are not in an array.
        workers: how many processes decode them.
    """

    folder: Path
    manifest: dict[str, Any]
    root: Path
    workers: int = 0

    @property
    def fingerprint(self) -> str:
        """One digest of all images, labels and their split."""
        return str(self.manifest["fingerprint"])

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.manifest["classes"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image as networks see it."""
        height, width, channels = self.manifest["shape"]
        return channels, height, width

    def images(self, split: Split) -> ImageStore:
        """The images of a split."""
        if self.manifest["store"] == "array":
            return ArrayStore(torch.from_numpy(self._read(f"{split}_images.npy")))
        index, side = self._read(f"{split}_index.npy"), self.manifest["side"]
        return FileStore(self.root, index, side, self.shape[0], self.workers)

    def digest(self, split: Split) -> str:
        """A digest of the images of a split, the same whatever the other splits hold."""
        kind = "images" if self.manifest["store"] == "array" else "index"
        return str(self.manifest["files"][f"{split}_{kind}.npy"])

    def labels(self, split: Split) -> torch.Tensor:
        """The int64 labels `(N,)` of a split."""
        return torch.from_numpy(self._read(f"{split}_labels.npy"))

    def _read(self, name: str) -> NDArray[Any]:
        path = self.folder / name
        try:
            check_file(path, self.manifest["files"].get(name))
        except ValueError as error:
            raise ValueError(f"{error}; {MEND}") from None
        return np.load(path, allow_pickle=False)


def open_prepared(folder: Path, root: str | None = None, workers: int = 0) -> Prepared:
    """Open the output of `prepare`.

    Args:
        folder: where it lies.
        root: `data.root`, where image files lie; None is the dataset's place in the user's folder.
        workers: how many processes decode image files.

    Raises:
        ValueError: if the manifest is missing or damaged.
    """
    try:
        manifest = read_sealed(folder / "manifest.json")
        return Prepared(folder, manifest, image_root(manifest["dataset"], root), workers)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{error}; {MEND}") from None


def image_root(dataset: str, root: str | None) -> Path:
    """The folder of a dataset's image files."""
    return named_folder("data.root", root) if root else user_folder() / dataset
