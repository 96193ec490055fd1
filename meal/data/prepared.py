"""What `prepare` leaves on disk: three splits as uint8 arrays, and a manifest that seals them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from meal.files import read_sealed, sha256

SPLITS = ("train", "validation", "test")
Split = Literal["train", "validation", "test"]

MEND = "mend it with: dvc repro prepare"


@dataclass(frozen=True)
class Prepared:
    """The prepared data. Splits are read when asked for.

    Attributes:
        folder: where the arrays lie.
        manifest: dataset, title, classes, counts, shape, mean, deviation, file checksums.
        fingerprint: one digest of images, labels and their split.
    """

    folder: Path
    manifest: dict[str, Any]

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
        """Channels, height and width of an image."""
        height, width, channels = self.manifest["shape"]
        return channels, height, width

    def images(self, split: Split) -> torch.Tensor:
        """The uint8 images `(N, H, W, C)` of a split."""
        return torch.from_numpy(self._read(f"{split}_images.npy"))

    def labels(self, split: Split) -> torch.Tensor:
        """The int64 labels `(N,)` of a split."""
        return torch.from_numpy(self._read(f"{split}_labels.npy"))

    def _read(self, name: str) -> NDArray[Any]:
        path = self.folder / name
        if not path.is_file() or sha256(path) != self.manifest["files"].get(name):
            raise ValueError(f"{path} is missing or damaged; {MEND}")
        return np.load(path, allow_pickle=False)


def open_prepared(folder: Path) -> Prepared:
    """Open the output of `prepare`.

    Raises:
        ValueError: if the manifest is missing or damaged.
    """
    try:
        return Prepared(folder, read_sealed(folder / "manifest.json"))
    except ValueError as error:
        raise ValueError(f"{error}; {MEND}") from None
