"""Archives that others unpack write below their own folder and nowhere else."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def contained() -> Iterator[None]:
    """Meanwhile, members of tar files that lead elsewhere are refused (PEP 706)."""
    before = getattr(tarfile.TarFile, "extraction_filter", None)
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before
