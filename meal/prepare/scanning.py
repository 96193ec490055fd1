"""Reading every image file once: which ones are intact, what they hold, and their checksums."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from meal.core import ranks
from meal.core.collectives import collect, share_ranges
from meal.core.errors import UserError
from meal.core.progress import Progress
from meal.core.text import printable
from meal.data.decoding import decode, read_image
from meal.data.stores import load_ahead
from meal.prepare.duplicates import digest
from meal.prepare.parts import Stored, divide

_BATCH = 64  # files per batch of a worker
_ARRAYS = ("pixels", "digests", "pixel_digests", "bytes", "sizes", "grey", "sums")


@dataclass
class Scan:
    """The findings for all files, in their order.

    Attributes:
        paths: relative to the root, as bytes.
        pixels: uint8 `(N, side, side, 3)` if they are kept, else `(0, side, side, 3)`.
        digests: SHA-256 `(N, 32)` of the files, broken ones included if they could be read.
        pixel_digests: SHA-256 `(N, 32)` of the prepared images.
        bytes: the sizes of the files.
        sizes: width and height in pixels `(N, 2)`.
        grey: whether each file holds only grey levels.
        sums: of the prepared image's values and of their squares, by channel `(N, 2, 3)`.
        faults: what is wrong with broken files, by row.
    """

    paths: NDArray[np.bytes_]
    pixels: NDArray[np.uint8]
    digests: NDArray[np.uint8]
    pixel_digests: NDArray[np.uint8]
    bytes: NDArray[np.int64]
    sizes: NDArray[np.int64]
    grey: NDArray[np.bool_]
    sums: NDArray[np.int64]
    faults: dict[int, str]

    def name(self, row: int) -> str:
        """A file's path below the root, printable on one line."""
        path = os.fsdecode(self.paths[row])
        return printable(path)

    def index(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Path, size and checksum of the files of `rows`, as a structured array."""
        kinds = [("path", self.paths.dtype), ("size", "<i8"), ("sha256", "u1", 32)]
        index = np.empty(len(rows), dtype=kinds)
        index["path"], index["size"] = self.paths[rows], self.bytes[rows]
        index["sha256"] = self.digests[rows]
        return index

    def of(self, part: slice) -> dict[str, NDArray[Any]]:
        """The arrays of some files; that of the pixels is empty unless they are kept."""
        return {name: getattr(self, name)[part] for name in _ARRAYS}

    def fill(self, part: slice, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set what `of` has returned."""
        for name, values in arrays.items():
            getattr(self, name)[part] = values


class _Files(Dataset[Any]):
    """Files to be read in batches by worker processes."""

    def __init__(self, root: Path, paths: NDArray[np.bytes_], side: int, keep: bool) -> None:
        self.root, self._paths, self.side, self.keep = root, paths, side, keep

    def __getitem__(self, rows: NDArray[np.int64]) -> tuple[Tensor, dict[str, Any], dict[int, str]]:
        count, side = len(rows), self.side
        found: dict[str, Any] = {
            "pixels": np.zeros((count if self.keep else 0, side, side, 3), np.uint8),
            "digests": np.zeros((count, 32), np.uint8),
            "pixel_digests": np.zeros((count, 32), np.uint8),
            "bytes": np.zeros(count, np.int64),
            "sizes": np.zeros((count, 2), np.int64),
            "grey": np.zeros(count, bool),
            "sums": np.zeros((count, 2, 3), np.int64),
        }
        faults = {}
        for place, row in enumerate(rows.tolist()):
            try:
                content = read_image(self.root / os.fsdecode(self._paths[row]))
                found["digests"][place] = digest(content)
                found["bytes"][place] = len(content)
                image = decode(content, side)
            except OSError as error:
                faults[row] = str(error.strerror)
                continue
            except UserError as error:
                faults[row] = str(error)
                continue
            found["sizes"][place], found["grey"][place] = image.size, image.grey
            found["pixel_digests"][place] = digest(image.pixels.data)
            values = image.pixels.astype(np.int64)
            found["sums"][place] = values.sum((0, 1)), (values**2).sum((0, 1))
            if self.keep:
                found["pixels"][place] = image.pixels
        arrays = {name: torch.from_numpy(array) for name, array in found.items()}
        return torch.from_numpy(rows), arrays, faults


def scan(
    root: Path,
    paths: Sequence[str],
    side: int,
    keep: bool,
    workers: int,
    work: Path | None = None,
) -> Scan:
    """Read and decode every file; each rank reads some parts of them.

    Args:
        root: the folder that `paths` are relative to.
        paths: the files.
        side: of the prepared images, in pixels.
        keep: whether to keep the pixels.
        workers: the number of decoding processes.
        work: the folder for finished parts, from which an interrupted scan resumes; None for none.
    """
    count = len(paths)
    found = Scan(
        np.array([os.fsencode(path) for path in paths]),
        np.zeros((count if keep else 0, side, side, 3), np.uint8),
        np.zeros((count, 32), np.uint8),
        np.zeros((count, 32), np.uint8),
        np.zeros(count, np.int64),
        np.zeros((count, 2), np.int64),
        np.zeros(count, bool),
        np.zeros((count, 2, 3), np.int64),
        {},
    )
    parts = divide(count)
    shares = [parts[own] for own in ranks.ranges(len(parts))]
    _read(found, _Files(root, found.paths, side, keep), shares[ranks.rank()], workers, work)
    _share(found, [slice(own[0].start, own[-1].stop) if own else slice(0, 0) for own in shares])
    return found


def _read(
    found: Scan, files: _Files, parts: Sequence[slice], workers: int, work: Path | None
) -> None:
    """Fill in the findings for some parts: those in the folder `work`, and then the others."""
    form = f"{files.side} {files.keep}"
    unread: dict[int, Stored] = {}  # by the row at which they stop
    for part in parts:
        stored = Stored(work, files.root, found.paths, part, form)
        arrays = stored.load()
        if arrays is None:
            unread[part.stop] = stored
        else:
            found.fill(part, arrays)
    missing = [each.part for each in unread.values()]
    left, total = (sum(part.stop - part.start for part in some) for some in (missing, parts))
    if left < total:
        print(f"resumes: {total - left} of {total} images have been read", flush=True)

    def order() -> Iterator[Tensor]:
        for each in unread.values():
            each.note()
            yield from torch.arange(each.part.start, each.part.stop).split(_BATCH)

    with Progress("reading the images", total, "images", done=total - left) as progress:
        for rows, arrays, faults in load_ahead(files, order(), workers):
            for name, values in arrays.items():
                if len(values):
                    getattr(found, name)[rows.numpy()] = values.numpy()
            found.faults |= {int(row): reason for row, reason in faults.items()}
            done = unread.get(int(rows[-1]) + 1)
            # A broken file is read again: it may be repaired, or only have been out of reach.
            if done is not None and found.faults.keys().isdisjoint(
                range(done.part.start, done.part.stop)
            ):
                done.save(found.of(done.part))
            progress.advance(len(rows))
            if progress.due():
                progress.show({"broken": len(found.faults)})


def _share(found: Scan, ranges: list[slice]) -> None:
    """Give all ranks the findings of each, which has those of its range of files."""
    for name in _ARRAYS:
        values = getattr(found, name)
        if len(values):
            share_ranges(torch.from_numpy(values.reshape(len(values), -1).view(np.uint8)), ranges)
    for faults in collect(found.faults):
        found.faults |= faults
