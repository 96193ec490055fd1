"""The parts of a cache under construction: which exist, which are done, and their moments.

A part is a range of images in one view. A note records its checksum when it is done, so a build
resumes where it stopped, and several processes can share the parts (`--part i/n`, or ranks).
The cache has the same bytes whichever process computes a part.
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from meal.core.errors import UserError
from meal.core.files import read_sealed, write_sealed
from meal.targets.cache import Array, moments_entry, sums

LOGGER = logging.getLogger(__name__)

FOLDER = "parts"  # the sub-folder of the notes
_MOST_IMAGES = 1 << 16  # per part: the most that an interruption can lose


@dataclass(frozen=True)
class Shard:
    """One process's share of the parts: share `which` of `number`, counted from 1."""

    which: int
    number: int

    def __str__(self) -> str:
        """`i/n`."""
        return f"{self.which}/{self.number}"

    @property
    def name(self) -> str:
        """For the names of files."""
        return f"{self.which}-of-{self.number}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `i/n`; raise UserError unless 1 <= i <= n."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        which, number = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= which <= number:
            raise UserError(f"--part {text}: expected i/n, with i from 1 to n, such as 2/4")
        return cls(which, number)

    def of(self, parts: Sequence[Part]) -> Sequence[Part]:
        """The parts that belong to this share."""
        count = len(parts)
        first, last = (count * k // self.number for k in (self.which - 1, self.which))
        return parts[first:last]


@dataclass(frozen=True)
class Part:
    """The images from `start` to `stop` in one view."""

    number: int
    view: int
    start: int
    stop: int

    def __len__(self) -> int:
        """The number of images."""
        return self.stop - self.start

    def note(self, folder: Path) -> Path:
        """The file that records that the part is done."""
        return folder / FOLDER / f"{self.number:06d}.json"


def divide(views: int, images: int) -> list[Part]:
    """Divide the views of the images into parts of nearly equal size."""
    cuts = -(-images // _MOST_IMAGES)
    bounds = [images * cut // cuts for cut in range(cuts + 1)]
    return [
        Part(view * cuts + cut, view, bounds[cut], bounds[cut + 1])
        for view in range(views)
        for cut in range(cuts)
    ]


class Sums:
    """Sums of block values and of their squares, with each image counted once."""

    def __init__(self, sizes: Mapping[int, int]) -> None:
        """Start at zero; `sizes` gives the number of values of each block."""
        self._sums = {f"block{block}": np.zeros((2, size)) for block, size in sizes.items()}

    def add(self, outputs: Mapping[str, Array], skipped: int) -> None:
        """Add `outputs`, keyed by array name, without their first `skipped` rows."""
        for name, total in self._sums.items():
            total += sums(outputs[name][skipped:])

    def as_lists(self) -> dict[str, list[list[float]]]:
        """The sums, in a form that JSON can hold."""
        return {name: values.tolist() for name, values in self._sums.items()}


def write_note(folder: Path, part: Part, records: Array | None, found: Sums) -> None:
    """Record that a part is done, with the checksum and the sums of its outputs."""
    note = {"sums": found.as_lists(), "checksum": _checksum(part, records)}
    write_sealed(part.note(folder), note, shared=True)


def is_done(folder: Path, part: Part, records: Array | None) -> bool:
    """Whether the outputs of a part are in the records of its view, undamaged."""
    file = part.note(folder)
    if not file.exists():
        return False
    try:
        intact = read_sealed(file, "run it again")["checksum"] == _checksum(part, records)
    except UserError:
        intact = False
    if not intact:
        LOGGER.warning("%s or the outputs it describes are damaged and will be rebuilt", file)
    return intact


def _checksum(part: Part, records: Array | None) -> int:
    """A checksum of a part of the records of a view; 0 if outputs are not stored."""
    if records is None:
        return 0
    return zlib.crc32(records[part.start : part.stop].view(np.uint8).data)


def moments(folder: Path, parts: Sequence[Part]) -> dict[str, dict[str, list[float]]]:
    """Mean and std of the values of each block, summed in the order of the parts."""
    totals: dict[str, Array] = {}
    for part in parts:
        for name, own in read_sealed(part.note(folder), "run it again")["sums"].items():
            totals[name] = totals.get(name, 0) + np.array(own)
    count = sum(len(part) for part in parts)
    return {name: moments_entry(total, count) for name, total in totals.items()}
