"""Arrays that an interrupted evaluation does not compute again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meal.core import ranks
from meal.core.collectives import broadcast
from meal.core.files import atomic_path

Floats = NDArray[np.float32]


def kept(file: Path, compute: Callable[[], Floats]) -> Floats:
    """What `file` holds; if it is missing or damaged, what `compute` returns, which is kept.

    All ranks call this together: either all of them compute or none.
    """
    found = _read(file) if ranks.is_first() else None
    if broadcast(found is not None):
        return np.empty(0, np.float32) if found is None else found  # only the first rank scores
    values = compute()
    if ranks.is_first():
        with atomic_path(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, values=values)  # with checksums
    return values


def _read(file: Path) -> Floats | None:
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as stored:
            values: Floats = stored["values"]
            return values
    except Exception:  # damage in a header can raise anything
        return None
