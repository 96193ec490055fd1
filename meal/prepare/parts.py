"""The findings of a scan on disk, in parts, so that an interrupted one resumes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from meal.core.arrays import read_arrays, write_arrays
from meal.core.digests import fingerprint

_MOST_FILES = 4096  # per part: the most that an interruption can lose in each process
_LEAST_FILES, _PARTS = 64, 64  # and parts enough to share evenly, but not for a few files
_IDENTITY = "identity"  # the entry of a part that is no finding


def divide(count: int) -> list[slice]:
    """Divide `count` files into parts, whatever the number of processes."""
    size = min(max(_LEAST_FILES, math.ceil(count / _PARTS)), _MOST_FILES)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class Stored:
    """A part on disk: the findings for some files as they were before they were read."""

    def __init__(
        self, folder: Path | None, root: Path, paths: NDArray[np.bytes_], part: slice, form: str
    ) -> None:
        """Name the part.

        Args:
            folder: of all parts; None to store nothing.
            root: the folder that `paths` are relative to.
            paths: all files.
            part: which of them.
            form: what else decides the findings.
        """
        self.part = part
        self._path = None if folder is None else folder / f"part-{part.start:09d}.npz"
        self._root, self._paths, self._form = root, paths[part], form
        self._before = ""  # the identity when the files were about to be read

    def note(self) -> None:
        """Note names, sizes and times of the files; call this before they are read."""
        if self._path is None:
            return
        states = [_state(self._root, path) for path in self._paths]
        self._before = fingerprint([PIL.__version__, self._form, states])

    def save(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the findings for the files as they were at `note`."""
        if self._path is None:
            return
        entries: dict[str, Any] = {**arrays, _IDENTITY: self._before}
        write_arrays(self._path, entries)

    def load(self) -> dict[str, NDArray[Any]] | None:
        """What `save` wrote; None if it is missing or damaged, or anything has changed."""
        found = None if self._path is None else read_arrays(self._path)
        if found is None:
            return None
        self.note()
        return found if str(found.pop(_IDENTITY, "")) == self._before else None


def _state(root: Path, path: bytes) -> tuple[str, int, int, int]:
    """Name, size and times of a file: of its content and, as tools may set that, of any change."""
    name = os.fsdecode(path)
    try:
        found = (root / name).stat()
    except (OSError, ValueError):
        return name, -1, -1, -1
    return name, found.st_size, found.st_mtime_ns, found.st_ctime_ns
