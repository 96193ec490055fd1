"""The format of a cache: one teacher's outputs, which all later stages read.

A cache is a folder. `logits.npy` `(views, images, C)` and `block1.npy` ... `(views, images, D)`
hold the outputs for the training views, `validation_logits.npy` and `test_logits.npy`
`(images, C)`, float32, those for plain images, and `manifest.json` the fingerprints of everything
that the outputs depend on. With `cache.top_k`, `top_indices.npy` and `top_probabilities.npy`
`(views, images, k)` replace `logits.npy`. With `cache.enabled: false`, the folder holds the network
instead of its outputs for views, so that it can run online.

Aligned blocks are stored raw. Their mean and std over the training views are in the manifest, and
readers standardise with them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meal.core.digests import sha256
from meal.core.errors import UserError
from meal.core.files import check_file, read_sealed, write_errors, write_sealed
from meal.data.prepared import Split
from meal.targets.topk import compress, expand, index_dtype

Array = NDArray[Any]
Memmap = np.memmap[Any, np.dtype[Any]]
Layout = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]  # dtype and shape of arrays by name

PLAIN_SPLITS: tuple[Split, ...] = ("validation", "test")
NETWORK = "network"  # the sub-folder of the teacher's network, if it runs online


class TargetCache:
    """A cache folder, opened for reading. Arrays are memory-mapped on first use."""

    def __init__(self, folder: Path, stage: str) -> None:
        """Open a cache; each file is compared with its checksum on first use.

        Args:
            folder: the cache.
            stage: the stage that wrote it, for error messages.

        Raises:
            UserError: if the manifest is missing or damaged.
        """
        self.folder = folder
        self._fix = f"dvc repro {stage}"
        self.manifest = read_sealed(folder / "manifest.json", self._fix)
        if not {"files", "blocks", "top_k"} <= self.manifest.keys():
            raise UserError(f"{folder} does not hold a cache; fix: {self._fix}")
        self._arrays: dict[str, Array] = {}

    @property
    def blocks(self) -> list[int]:
        """The numbers of the blocks that the teacher has."""
        return [int(block) for block in self.manifest["blocks"]]

    def logits(self, view: int, images: Array | slice) -> Tensor:
        """Logits `(N, C)`, float32, for a view of images; log-probabilities if top-k is set."""
        if self.manifest["top_k"]:
            indices = self._rows("top_indices", view, images)
            return expand(indices, self._rows("top_probabilities", view, images), self.classes)
        return torch.from_numpy(self._rows("logits", view, images).astype(np.float32))

    def block(self, block: int, view: int, images: Array | slice) -> Tensor:
        """Aligned values `(N, D)`, float32, of a block for a view of images."""
        return torch.from_numpy(self._rows(f"block{block}", view, images).astype(np.float32))

    def plain_logits(self, split: Split) -> Array:
        """Logits `(N, C)`, float32, for the plain images of a split."""
        return self.array(f"{split}_logits")

    def plain_targets(self, split: Split) -> Array:
        """The plain logits `(N, C)`, in the form of those for views: top-k if that is set."""
        logits = self.plain_logits(split)
        if not self.manifest["top_k"]:
            return np.array(logits)
        log_probabilities = torch.log_softmax(torch.from_numpy(np.array(logits)), dim=1)
        indices, kept = compress(log_probabilities, self.manifest["top_k"])
        dtype = self.array("top_probabilities").dtype
        return expand(indices.numpy(), kept.numpy().astype(dtype), self.classes).numpy()

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.array("test_logits").shape[1])

    def moments(self, block: int) -> tuple[Tensor, Tensor]:
        """Mean and std, each `(D,)` float32, of a block's values over the training views."""
        entry = self.manifest["blocks"][str(block)]
        return torch.tensor(entry["mean"]), torch.tensor(entry["deviation"])

    def array(self, name: str) -> Array:
        """An array by its file name without `.npy`, memory-mapped, read-only.

        Raises:
            UserError: if the file is missing or damaged.
        """
        if name not in self._arrays:
            path = self.folder / f"{name}.npy"
            check_file(path, self.manifest["files"].get(path.name), self._fix)
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            self._arrays[name] = mapped.view(np.ndarray)  # indexing a memmap itself is slow
        return self._arrays[name]

    def _rows(self, name: str, view: int, images: Array | slice) -> Array:
        """Rows of an array; `take` gathers shuffled rows about as fast as a slice reads them."""
        rows = self.array(name)[view]
        return rows[images] if isinstance(images, slice) else rows.take(images, axis=0)


def sums(values: Array) -> Array:
    """The sums of a block's values `(N, D)`, and of their squares: `(2, D)`, float64."""
    exact = values.astype(np.float64)
    return np.stack([exact.sum(axis=0), (exact**2).sum(axis=0)])


def moments_entry(totals: Array, count: int) -> dict[str, list[float]]:
    """Mean and std `(D,)` of `count` values, as the manifest holds them, from their `sums`."""
    mean, square = totals / count
    std = np.sqrt(np.maximum(square - mean**2, 0))
    # A constant value carries no information: dividing by one keeps it at zero.
    std = np.where(std > 1e-6 * np.maximum(1.0, np.abs(mean)), std, 1.0)
    return {"mean": mean.tolist(), "deviation": std.tolist()}


def logits_layout(rows: tuple[int, int], classes: int, dtype: str, top_k: int | None) -> Layout:
    """The arrays that hold the logits of `rows` (views, images), or their k largest."""
    if top_k is None:
        return {"logits": (np.dtype(dtype), (*rows, classes))}
    return {
        "top_indices": (index_dtype(classes), (*rows, top_k)),
        "top_probabilities": (np.dtype(dtype), (*rows, top_k)),
    }


def seal(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a finished cache, with the checksums of its files."""
    paths = sorted([*folder.glob("*.npy"), *folder.glob(f"{NETWORK}/*")])
    files = {str(path.relative_to(folder)): sha256(path) for path in paths}
    arrays = [(path.stem, np.load(path, mmap_mode="r")) for path in paths if path.suffix == ".npy"]
    shapes = {name: list(array.shape) for name, array in arrays}
    write_sealed(folder / "manifest.json", {**manifest, "shapes": shapes, "files": files})


def create(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Memmap:
    """Open a memory-mapped array for writing, creating it if it does not exist.

    Several processes may do this at once; none sees a half-created array.

    Raises:
        UserError: if the disk is full, or the existing array is damaged.
    """
    if not path.exists():
        # A random name: processes on different machines may have the same id.
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        new = Path(name)
        new.chmod(0o644)  # mkstemp creates private files
        try:
            with write_errors(path, OSError):
                np.lib.format.open_memmap(new, mode="w+", dtype=dtype, shape=shape)
                # Reserve the space now: writing to a mapped page without space kills the process.
                with new.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, new.stat().st_size)
            try:
                os.link(new, path)
            except FileExistsError:  # another process has created it
                pass
            except OSError:  # a file system without hard links
                new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    try:
        array: Memmap = np.lib.format.open_memmap(path, mode="r+")
    except ValueError:
        array = None  # type: ignore[assignment]
    if array is None or array.dtype != dtype or array.shape != shape:
        raise UserError(f"{path} is damaged; remove it and run the same command again")
    return array
