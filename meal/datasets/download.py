"""Published files from the web, verified by their checksums."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from meal.core.errors import UserError
from meal.core.paths import named_folder, user_folder
from meal.datasets.archives import exclusive

_TIMEOUT = 60.0  # seconds without data before a download fails


@dataclass(frozen=True)
class Resource:
    """A published file: its name, its addresses, and its MD5 according to torchvision."""

    name: str
    urls: tuple[str, ...]
    md5: str


def download(missing: Sequence[Resource], folder: Path, title: str, page: str) -> None:
    """Download files into `folder` with a progress bar; an interrupted download starts over.

    Args:
        missing: the files.
        folder: where they belong.
        title: the name of the dataset.
        page: the web page with the files.

    Raises:
        UserError: if a file could not be downloaded, or `folder` is in the project.
    """
    from torchvision.datasets.utils import download_url

    names = ", ".join(resource.name for resource in missing)
    wanted = f"put the files from {page} there, or set data.root to another folder"
    if folder.resolve().is_relative_to(named_folder("data.root", ".").resolve()):
        raise UserError(
            f"{_called(folder)} lacks {names}, and nothing is downloaded into the project's own "
            f"folder: {wanted}"
        )
    with exclusive(folder), _timeout():
        print(f"downloading {names} to {folder} (data.root or MEAL_DATA changes the folder)")
        for resource in missing:
            partial = f"{resource.name}.part"  # renamed when complete
            for url in resource.urls:
                try:
                    if not (folder / resource.name).is_file():  # else another process has it
                        download_url(url, str(folder), partial, resource.md5)
                        (folder / partial).replace(folder / resource.name)
                    break
                except (RuntimeError, OSError, ValueError, HTTPException) as error:
                    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            else:
                raise UserError(
                    f"{title}: {_called(folder)} lacks {names}, and they could "
                    f"not be downloaded ({reason}): {wanted}"
                )


def _called(folder: Path) -> str:
    """A folder, with the key that names it, if any."""
    return str(folder) if folder == user_folder() else f"data.root={str(folder)!r}"


@contextlib.contextmanager
def _timeout() -> Iterator[None]:
    """Set a timeout for connections, as torchvision sets none and a server may stop responding."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
