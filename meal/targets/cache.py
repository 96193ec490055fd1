"""The format of a cache: one teacher's outputs, which all later stages read.

A cache is a folder. `views/00000.npy` and so on hold the outputs for one view of all training
images: a record per image, with `logits` `(C,)`, or `top_indices` and `top_probabilities` `(k,)`
with `cache.top_k`, and `block1` ... `(D,)`. So views can be copied one by one, and the outputs for
an image are at a known place. `validation_logits.npy` and `test_logits.npy` `(images, C)`, float32,
are for plain images, and `manifest.json` has the fingerprints of everything that the outputs depend
on. With `cache.enabled: false`, the folder holds the network instead of its outputs for views, so
that it can run online.

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
from meal.core.files import check_file, read_sealed, umask, write_errors, write_sealed
from meal.data.prepared import Split
from meal.targets.topk import compress, expand, index_dtype

Array = NDArray[Any]
Memmap = np.memmap[Any, np.dtype[Any]]

VIEWS = "views"  # the sub-folder of the records
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
        self._opened: dict[str, Array] = {}

    @property
    def blocks(self) -> list[int]:
        """The numbers of the blocks that the teacher has."""
        return [int(block) for block in self.manifest["blocks"]]

    def outputs(self, view: int, images: Array | slice) -> Outputs:
        """The outputs for a view of images `(N,)`, read at once."""
        records = self.records(view)
        # `take` gathers shuffled rows about as fast as a slice reads them.
        rows = records[images] if isinstance(images, slice) else records.take(images)
        return Outputs(rows, self.classes)

    def records(self, view: int) -> Array:
        """The records `(images,)` of a view, memory-mapped, read-only.

        Raises:
            UserError: if the file is missing or damaged.
        """
        return self._open(view_file(view))

    def plain_logits(self, split: Split) -> Array:
        """Logits `(N, C)`, float32, for the plain images of a split."""
        return self._open(f"{split}_logits.npy")

    def plain_targets(self, split: Split) -> Array:
        """The plain logits `(N, C)`, in the form of those for views: top-k if that is set."""
        logits = self.plain_logits(split)
        if not self.manifest["top_k"]:
            return np.array(logits)
        log_probabilities = torch.log_softmax(torch.from_numpy(np.array(logits)), dim=1)
        indices, kept = compress(log_probabilities, self.manifest["top_k"])
        dtype = np.dtype(self.manifest["dtype"])
        return expand(indices.numpy(), kept.numpy().astype(dtype), self.classes).numpy()

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.plain_logits("test").shape[1])

    def moments(self, block: int) -> tuple[Tensor, Tensor]:
        """Mean and std, each `(D,)` float32, of a block's values over the training views."""
        entry = self.manifest["blocks"][str(block)]
        return torch.tensor(entry["mean"]), torch.tensor(entry["std"])

    def check(self, name: str) -> None:
        """Raise UserError if a file that the manifest names is missing or damaged."""
        check_file(self.folder / name, self.manifest["files"].get(name), self._fix)

    def _open(self, name: str) -> Array:
        if name not in self._opened:
            self.check(name)
            mapped = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
            self._opened[name] = mapped.view(np.ndarray)  # indexing a memmap itself is slow
        return self._opened[name]


class Outputs:
    """A teacher's outputs for one view of `N` images."""

    def __init__(self, rows: Array, classes: int) -> None:
        self._rows, self._classes = rows, classes

    @property
    def logits(self) -> Tensor:
        """Logits `(N, C)`, float32; log-probabilities if only the k largest are stored."""
        if "logits" in (self._rows.dtype.names or ()):
            return torch.from_numpy(self._rows["logits"].astype(np.float32))
        return expand(self._rows["top_indices"], self._rows["top_probabilities"], self._classes)

    def block(self, block: int) -> Tensor:
        """Aligned values `(N, D)`, float32, of a block."""
        return torch.from_numpy(self._rows[f"block{block}"].astype(np.float32))


def view_file(view: int) -> str:
    """The name of the file of a view, below the cache's folder."""
    return f"{VIEWS}/{view:05d}.npy"


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
    return {"mean": mean.tolist(), "std": std.tolist()}


def record(
    classes: int, dtype: str, top_k: int | None, blocks: Mapping[int, int]
) -> np.dtype[np.void]:
    """The type of the record of an image: its logits or their k largest, then its blocks.

    Args:
        classes: the number of logits.
        dtype: of all values.
        top_k: how many of the largest probabilities are stored; None for all logits.
        blocks: the number of values of each block.
    """
    fields: list[tuple[str, np.dtype[Any], tuple[int]]]
    if top_k is None:
        fields = [("logits", np.dtype(dtype), (classes,))]
    else:
        fields = [
            ("top_indices", index_dtype(classes), (top_k,)),
            ("top_probabilities", np.dtype(dtype), (top_k,)),
        ]
    fields += [(f"block{block}", np.dtype(dtype), (size,)) for block, size in blocks.items()]
    return np.dtype(fields)


def seal(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a finished cache, with the checksums of its files."""
    patterns = ("*.npy", f"{VIEWS}/*", f"{NETWORK}/*")
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern))
    files = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
    write_sealed(folder / "manifest.json", {**manifest, "files": files})


def create(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Memmap:
    """Open a memory-mapped array for writing, creating it if it does not exist.

    Several processes may do this at once; none sees a half-created array.

    Raises:
        UserError: if the disk is full, or the existing array is damaged.
    """
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        # A random name: processes on different machines may have the same id.
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        new = Path(name)
        new.chmod(0o666 & ~umask())  # mkstemp creates private files
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
