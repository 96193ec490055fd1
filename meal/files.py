"""Files that are whole or absent: atomic writes, checksums, JSON and CSV with stable bytes."""

from __future__ import annotations

import contextlib
import csv
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def user_folder() -> Path:
    """The folder for downloads, shared by all experiments: `MEAL_DATA`, or the user's cache."""
    return named_folder("MEAL_DATA", os.environ.get("MEAL_DATA") or "~/.cache/meal/data")


def named_folder(key: str, name: str) -> Path:
    """The folder that a user has named, absolute; `key` is where.

    DVC's experiments run in copies of the project, below its `.dvc/tmp/exps`: what is said
    relative to the project is so there too.

    Raises:
        ValueError: if it begins with the home of a user who has none.
    """
    try:
        folder = Path(name).expanduser()
    except RuntimeError:
        raise ValueError(f"{key}={name!r}: there is no such user's home; write the path") from None
    project = str(Path.cwd()).partition(f"{os.sep}.dvc{os.sep}tmp{os.sep}exps{os.sep}")[0]
    return Path(project) / folder


@contextlib.contextmanager
def atomic_path(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes `path`'s place when the block succeeds.

    Several processes may write a `shared` path at once; what killed ones leave of it stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not shared:
        _remove_leftovers(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes files for the owner alone; outputs follow the usual permissions.
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it replaces `path` when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def disk_errors(path: Path, kind: type[Exception]) -> Iterator[None]:
    """Turn `kind`, which a library's writer makes of a full disk, into an OSError that says so."""
    try:
        yield
    except kind as error:
        raise OSError(f"{path} cannot be written; is the disk full? ({error})") from None


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed process left beside `path`; only one process at a time writes it."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def check_file(path: Path, digest: object) -> None:
    """Compare a file with its SHA-256.

    Raises:
        ValueError: if it is missing, or its content is another.
    """
    if not path.is_file() or sha256(path) != digest:
        _expose(path)
        raise ValueError(f"{path} is missing or damaged")


def _expose(path: Path) -> None:
    """Let DVC see that a file is damaged, so that `dvc repro` mends it.

    It takes a file for unchanged that has the time it knows, and one of its own cache for whole
    that is read-only; a disk that spoils bits changes neither.
    """
    if path.is_file():
        with contextlib.suppress(OSError):
            path.chmod(0o644)
            os.utime(path)


def write_json(path: Path, value: Mapping[str, Any], *, shared: bool = False) -> None:
    """Write `value` as indented JSON; equal values give equal bytes."""
    with atomic_path(path, shared=shared) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: if the file is missing, is not JSON, or is not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        _expose(path)
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        _expose(path)
        raise ValueError(f"{path} does not hold a JSON object")
    return value


def write_sealed(path: Path, value: Mapping[str, Any], *, shared: bool = False) -> dict[str, Any]:
    """Write a JSON object with a `fingerprint` of the rest of it; return what was written."""
    sealed = {**value, "fingerprint": fingerprint(value)}
    write_json(path, sealed, shared=shared)
    return sealed


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Raises:
        ValueError: if the file is missing or its content is not what was sealed.
    """
    value = read_json(path)
    if value.get("fingerprint") != fingerprint(
        {k: v for k, v in value.items() if k != "fingerprint"}
    ):
        _expose(path)
        raise ValueError(f"{path} is damaged")
    return value


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that share their keys as CSV, the keys of the first as header."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system cannot."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: object) -> str:
    """The SHA-256 of a JSON-able value, the same for equal values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
