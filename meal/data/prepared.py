"""What `prepare` writes: three splits, and a manifest that seals them.

A split is an array of pixels, or an index of image files that stay in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from meal.core.errors import UserError
from meal.core.files import check_file, read_sealed
from meal.core.paths import DATA, named_folder, user_folder
from meal.core.runtime import data_root, load_runtime
from meal.data.stores import ArrayStore, FileStore, ImageStore, worker_count

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Split = Literal["train", "validation", "test"]
Pool = Literal["all", "labelled", "unlabelled"]

FIX = "dvc repro prepare"


@dataclass(frozen=True)
class Prepared:
    """The prepared data. Splits are read on request.

    Attributes:
        folder: holds the arrays and indices.
        manifest: dataset, classes, counts, store, shape, normalisation, checksums of the files, and
            the findings of `prepare`.
        root: the folder of the image files, for splits that are an index.
        workers: the number of processes that decode them.
    """

    folder: Path
    manifest: dict[str, Any]
    root: Path
    workers: int = 0

    @property
    def fingerprint(self) -> str:
        """A digest of all images, labels and splits."""
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

    @property
    def mean(self) -> list[float]:
        """The mean of the training pixels in [0, 1], by channel."""
        return list(self.manifest["mean"])

    @property
    def std(self) -> list[float]:
        """The std of the training pixels in [0, 1], by channel."""
        return list(self.manifest["std"])

    def count(self, split: Split) -> int:
        """The number of images in a split."""
        return int(self.manifest["counts"][split])

    def images(self, split: Split) -> ImageStore:
        """The images of a split."""
        if self.manifest["store"] == "array":
            return ArrayStore(torch.from_numpy(self._read(f"{split}_images.npy")))
        index, side = self._read(f"{split}_index.npy"), self.manifest["side"]
        return FileStore(self.root, index, side, self.shape[0], self.workers)

    def digest(self, split: Split) -> str:
        """A digest of the images of a split that does not depend on the other splits."""
        kind = "images" if self.manifest["store"] == "array" else "index"
        return str(self.manifest["files"][f"{split}_{kind}.npy"])

    def labels(self, split: Split) -> torch.Tensor:
        """The int64 labels `(N,)` of a split; -1 for training images without a label."""
        return torch.from_numpy(self._read(f"{split}_labels.npy"))

    def training_rows(self, pool: Pool) -> torch.Tensor:
        """The rows `(M,)` of `train` that belong to a pool."""
        labels = self.labels("train")
        if pool == "all":
            return torch.arange(len(labels))
        return ((labels >= 0) == (pool == "labelled")).nonzero()[:, 0]

    def _read(self, name: str) -> NDArray[Any]:
        path = self.folder / name
        check_file(path, self.manifest["files"].get(name), FIX)
        return np.load(path, allow_pickle=False)


def open_prepared(folder: Path, root: str | None = None, workers: int = 0) -> Prepared:
    """Open the output of `prepare`.

    Args:
        folder: the output.
        root: `data.root`, the folder of the image files; None for the dataset's default.
        workers: the number of processes that decode image files.

    Raises:
        UserError: if the manifest is missing or damaged.
    """
    path = folder / "manifest.json"
    manifest = read_sealed(path, FIX)
    if "dataset" not in manifest:
        raise UserError(f"{path} is not a manifest of prepared data; fix: {FIX}")
    place = named_folder("data.root", root) if root else user_folder() / manifest["dataset"]
    return Prepared(folder, manifest, place, workers)


def open_data() -> Prepared:
    """The project's prepared data, with `data.root` and `runtime.workers` from params.yaml."""
    return open_prepared(DATA, data_root(), worker_count(load_runtime().workers))
