"""A teacher's answers on disk, as everything after the stage `cache` reads them.

One folder a teacher: `logits.npy` `(views, images, C)`, `block1.npy` ... `(views, images, D)`,
`validation_logits.npy` and `test_logits.npy` `(images, C)` in float32, and `manifest.json` with the
fingerprints of all that the answers depend on. With `cache.top_k`, `top_indices.npy` and
`top_shares.npy` `(views, images, k)` stand in the place of `logits.npy`. With
`cache.enabled: false` there are no answers to views: the teacher's network lies in the folder, to
be run online.

Aligned blocks are stored as they come; their mean and deviation over the training views stand in
the manifest, and readers standardise with them.
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

from meal.data.prepared import Split
from meal.files import check_file, disk_errors, read_sealed, sha256, write_sealed
from meal.teaching.topk import expand

Array = NDArray[Any]

PLAIN_SPLITS: tuple[Split, ...] = ("validation", "test")
NETWORK = "network"  # the sub-folder of the teacher's network, where teachers run online


class AnswerCache:
    """A cache folder, opened for reading. Arrays are memory-mapped when first used."""

    def __init__(self, folder: Path, stage: str) -> None:
        """Open a cache; every file is checked against its checksum when it is first used.

        Args:
            folder: where it lies.
            stage: the stage that wrote it there, which errors name.

        Raises:
            ValueError: if the manifest is missing or damaged.
        """
        self.folder = folder
        self._mend = f"mend it with: dvc repro {stage}"
        try:
            self.manifest = read_sealed(folder / "manifest.json")
        except ValueError as error:
            raise ValueError(f"{error}; {self._mend}") from None
        self._arrays: dict[str, Array] = {}

    @property
    def blocks(self) -> list[int]:
        """The numbers of the blocks that the teacher has."""
        return [int(block) for block in self.manifest["blocks"]]

    def logits(self, view: int, images: Array | slice) -> Tensor:
        """The answers `(N, C)`, float32, to a view of images; log-probabilities with top-k."""
        if self.manifest["top_k"]:
            indices = self._rows("top_indices", view, images)
            return expand(indices, self._rows("top_shares", view, images), self.classes)
        return torch.from_numpy(self._rows("logits", view, images).astype(np.float32))

    def block(self, block: int, view: int, images: Array | slice) -> Tensor:
        """The aligned values `(N, D)`, float32, of a block in a view of images."""
        return torch.from_numpy(self._rows(f"block{block}", view, images).astype(np.float32))

    def plain_logits(self, split: Split) -> Array:
        """The answers `(N, C)`, float32, to the plain images of a split."""
        return self.array(f"{split}_logits")

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.array("test_logits").shape[1])

    def moments(self, block: int) -> tuple[Tensor, Tensor]:
        """Mean and deviation `(D,)` of a block's values over the training views, float32."""
        entry = self.manifest["blocks"][str(block)]
        return torch.tensor(entry["mean"]), torch.tensor(entry["deviation"])

    def array(self, name: str) -> Array:
        """An array by its file's name without `.npy`, memory-mapped, read-only.

        Raises:
            ValueError: if the file is missing or damaged.
        """
        if name not in self._arrays:
            path = self.folder / f"{name}.npy"
            try:
                check_file(path, self.manifest["files"].get(path.name))
            except ValueError as error:
                raise ValueError(f"{error}; {self._mend}") from None
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            self._arrays[name] = mapped.view(np.ndarray)  # a memmap's own indexing is slow
        return self._arrays[name]

    def _rows(self, name: str, view: int, images: Array | slice) -> Array:
        """Rows of an array; `take` gathers shuffled rows as fast as a slice reads them."""
        rows = self.array(name)[view]
        return rows[images] if isinstance(images, slice) else rows.take(images, axis=0)


def seal(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a finished cache, with the checksums of its files."""
    paths = sorted([*folder.glob("*.npy"), *folder.glob(f"{NETWORK}/*")])
    files = {str(path.relative_to(folder)): sha256(path) for path in paths}
    arrays = [(path.stem, np.load(path, mmap_mode="r")) for path in paths if path.suffix == ".npy"]
    shapes = {name: list(array.shape) for name, array in arrays}
    write_sealed(folder / "manifest.json", {**manifest, "shapes": shapes, "files": files})


def create(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> np.memmap[Any, np.dtype[Any]]:
    """A memory-mapped array for writing: the one that is there, or a new one.

    Several processes may ask for the same one at once: none sees it half made.
    """
    if not path.exists():
        # A name of its own: processes of several machines may have the same number.
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        new = Path(name)
        new.chmod(0o644)  # mkstemp makes files for the owner alone
        try:
            with disk_errors(path, OSError):
                np.lib.format.open_memmap(new, mode="w+", dtype=dtype, shape=shape)
                with new.open("r+b") as file:  # later, a page without a place is a deadly signal
                    os.posix_fallocate(file.fileno(), 0, new.stat().st_size)
            try:
                os.link(new, path)
            except FileExistsError:  # another process was first
                pass
            except OSError:  # a file system without hard links
                new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    try:
        array: np.memmap[Any, np.dtype[Any]] = np.lib.format.open_memmap(path, mode="r+")
    except ValueError:
        array = None  # type: ignore[assignment]
    if array is None or array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{path} is damaged; remove it, and run the same again")
    return array
