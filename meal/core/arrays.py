"""Arrays of unfinished work, in one file with checksums: either whole or not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meal.core.files import atomic_path


def write_arrays(file: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays to a file."""
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def read_arrays(file: Path) -> dict[str, NDArray[Any]] | None:
    """What `write_arrays` wrote; None if it is missing or damaged."""
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception:  # damage in a header can raise anything
        return None
