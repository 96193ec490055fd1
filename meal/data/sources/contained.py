"""Archives that others unpack: below their own folder, and one process at a time."""

from __future__ import annotations

import fcntl
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def contained() -> Iterator[None]:
    """Meanwhile, members of tar files that lead elsewhere are refused (PEP 706)."""
    before = getattr(tarfile.TarFile, "extraction_filter", None)
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time downloads to a folder, or unpacks there; another one waits."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise ValueError(f"{folder} cannot be written to: {error}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"waiting for another process that fills {folder}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
