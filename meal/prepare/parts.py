"""The findings of a scan on disk, in parts, so that an interrupted one resumes."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meal.core.digests import fingerprint
from meal.core.files import atomic_path

_MOST_FILES = 4096  # per part: the most that an interruption can lose in each process
_LEAST_FILES, _PARTS = 64, 64  # and parts enough to share evenly, but not for a few files
_FILES, _FAULTS = "files", "faults"  # the entries of a part that are no findings


def divide(count: int) -> list[slice]:
    """Divide `count` files into parts, whatever the number of processes."""
    size = min(max(_LEAST_FILES, math.ceil(count / _PARTS)), _MOST_FILES)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class Stored:
    """A part on disk: the findings for some files as they were when this object was made."""

    def __init__(self, folder: Path, root: Path, paths: NDArray[np.bytes_], part: slice) -> None:
        """Note the names, sizes and times of the files, before they are read.

        Args:
            folder: of all parts.
            root: the folder that `paths` are relative to.
            paths: all files.
            part: which of them.
        """
        self._path = folder / f"part-{part.start:09d}.npz"
        self._files = fingerprint([_state(root, path) for path in paths[part]])

    def save(self, arrays: Mapping[str, NDArray[Any]], faults: Mapping[int, str]) -> None:
        """Write the findings, and what is wrong with broken files, by row."""
        entries: dict[str, Any] = dict(arrays)
        entries |= {_FILES: self._files, _FAULTS: json.dumps(list(faults.items()))}
        with atomic_path(self._path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **entries)

    def load(self) -> tuple[dict[str, NDArray[Any]], dict[int, str]] | None:
        """What `save` wrote; None if it is missing, damaged, or for files that have changed."""
        try:
            with np.load(self._path, allow_pickle=False) as stored:
                if str(stored[_FILES]) != self._files:
                    return None
                arrays = {name: stored[name] for name in {*stored.files} - {_FILES, _FAULTS}}
                return arrays, dict(json.loads(str(stored[_FAULTS])))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None


def _state(root: Path, path: bytes) -> tuple[str, int, int]:
    """Name, size and time of a file."""
    name = os.fsdecode(path)
    try:
        found = (root / name).stat()
    except (OSError, ValueError):
        return name, -1, -1
    return name, found.st_size, found.st_mtime_ns
