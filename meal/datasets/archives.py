"""Unpacking archives safely: inside their own folder, one process at a time."""

from __future__ import annotations

import fcntl
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meal.core.errors import UserError


@contextmanager
def contained() -> Iterator[None]:
    """Refuse members of tar files that would be unpacked outside their folder (PEP 706)."""
    before = getattr(tarfile.TarFile, "extraction_filter", None)
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lock a folder for downloading or unpacking; other processes wait."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"waiting for another process that is writing to {folder}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
