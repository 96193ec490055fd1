"""Digests of files, of values, and of source code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: object) -> str:
    """The SHA-256 of a value that JSON can hold; equal values have equal fingerprints."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def code_digest(files: Iterable[Path], root: Path) -> str:
    """A digest of source files, of their paths below `root` and their contents, in any order."""
    return fingerprint({file.relative_to(root).as_posix(): sha256(file) for file in files})
