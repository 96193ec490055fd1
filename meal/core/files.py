"""Files that are complete or absent: atomic writes, checksums, JSON and CSV with stable bytes."""

from __future__ import annotations

import contextlib
import csv
import errno
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meal.core.digests import fingerprint, sha256
from meal.core.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray


_MOST_SYNCED = 1000  # files that are written to disk one by one; else everything is


@contextlib.contextmanager
def atomic_path(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces `path` if the block succeeds.

    Several processes may write a `shared` path at once, so leftovers of killed ones are kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not shared:
        _remove_leftovers(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with _naming(path):
            yield temporary
        temporary.chmod(0o666 & ~umask())  # mkstemp creates private files
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that replaces `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    temporary.chmod(0o777 & ~umask())
    try:
        with _naming(path):
            yield temporary
        _sync_all(temporary)  # before the old folder goes
        if path.exists():
            shutil.rmtree(path)
        _rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder once its bytes are on disk, and then write the new name to disk.

    So a power cut leaves the old state or the new one, never a name without its content.
    """
    _sync_all(source)
    _rename(source, target)


def _sync_all(path: Path) -> None:
    """Write a file, or a folder with all that it holds, to disk."""
    entries = list(path.rglob("*")) if path.is_dir() else []
    if len(entries) > _MOST_SYNCED:
        os.sync()
        return
    for entry in (*entries, path):
        _sync(entry)


def _rename(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # another file system
            raise
        shutil.move(source, target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    """Write a file, or the names in a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in errors of writing, such as of a full disk, that do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in (errno.EFBIG, errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{path} cannot be written: {error.strerror}") from None
        raise


@contextlib.contextmanager
def write_errors(path: Path, kind: type[Exception]) -> Iterator[None]:
    """Raise a UserError where a library reports a failed write as `kind`."""
    try:
        yield
    except kind as error:
        raise UserError(f"{path} cannot be written; is the disk full? ({error})") from None


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as `.npy`; raise UserError if the disk is full."""
    import numpy as np

    with write_errors(path, OSError):  # NumPy reports a short write without an error number
        np.save(path, array)


def umask() -> int:
    """The permissions that new files lack; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed process left beside `path`, which has only one writer at a time."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def check_file(path: Path, digest: object, fix: str) -> None:
    """Compare a file with its SHA-256.

    Args:
        path: the file.
        digest: its expected SHA-256.
        fix: the command that rebuilds it, for the message.

    Raises:
        UserError: if the file is missing or its content differs.
    """
    if not path.is_file() or sha256(path) != digest:
        _expose(path)
        raise UserError(f"{path} is missing or damaged; fix: {fix}")


def _expose(path: Path) -> None:
    """Let DVC notice that a file is damaged, so that `dvc repro` rebuilds it.

    DVC trusts unchanged mtimes and read-only cache files, so it misses bit rot.
    """
    if path.is_file():
        with contextlib.suppress(OSError):
            path.chmod(0o644)
            os.utime(path)


def write_json(path: Path, value: Mapping[str, Any], *, shared: bool = False) -> None:
    """Write `value` as indented JSON; equal values give equal bytes."""
    with atomic_path(path, shared=shared) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path, fix: str) -> dict[str, Any]:
    """Read a JSON object; `fix` is the command that rebuilds the file.

    Raises:
        UserError: if the file is missing, is not JSON, or is not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        _expose(path)
        raise UserError(f"{path} cannot be read: {error}; fix: {fix}") from None
    if not isinstance(value, dict):
        _expose(path)
        raise UserError(f"{path} does not hold a JSON object; fix: {fix}")
    return value


def write_sealed(path: Path, value: Mapping[str, Any], *, shared: bool = False) -> dict[str, Any]:
    """Write a JSON object with a `fingerprint` of its other values; return what was written."""
    sealed = {**value, "fingerprint": fingerprint(value)}
    write_json(path, sealed, shared=shared)
    return sealed


def read_sealed(path: Path, fix: str) -> dict[str, Any]:
    """Read what `write_sealed` wrote; `fix` is the command that rebuilds the file.

    Raises:
        UserError: if the file is missing or its content is not what was sealed.
    """
    value = read_json(path, fix)
    if value.get("fingerprint") != fingerprint(
        {k: v for k, v in value.items() if k != "fingerprint"}
    ):
        _expose(path)
        raise UserError(f"{path} is damaged; fix: {fix}")
    return value


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV; all rows have the same keys, which become the header."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
