"""Where the pixels of a split are kept: one array in memory, or files that worker processes decode.

Both give the same pixels for the same files: whoever reads them does not know which it is.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from meal.data.decoding import decode, read_image

_MOST_WORKERS = 16
_AHEAD = 2  # batches that each worker prepares beforehand


class ImageStore(Protocol):
    """The images of a split, uint8 and square.

    Attributes:
        side: pixels a side.
        channels: 1 or 3.
        whole: all of them `(N, side, side, channels)`, where they are in memory.
    """

    side: int
    channels: int
    whole: Tensor | None

    def __len__(self) -> int:
        """The number of images."""

    def fetch(self, rows: Tensor) -> Tensor:
        """The images `(B, side, side, channels)` of `rows` `(B,)`, read at once."""

    def read(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each of the batches of rows in `order` with its images, read ahead where that helps."""

    def to(self, device: torch.device) -> ImageStore:
        """The same images, kept on a device where they are in memory."""


class ArrayStore:
    """Images in memory, one array."""

    def __init__(self, images: Tensor) -> None:
        """Take uint8 images `(N, side, side, channels)`."""
        self.whole: Tensor | None = images
        self._images = images
        self.side, self.channels = int(images.shape[1]), int(images.shape[3])

    def __len__(self) -> int:
        """The number of images."""
        return len(self._images)

    def fetch(self, rows: Tensor) -> Tensor:
        """One gather."""
        return self._images[rows.to(self._images.device, non_blocking=True)]

    def read(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """One gather a batch."""
        for rows in order:
            yield rows, self.fetch(rows)

    def to(self, device: torch.device) -> ArrayStore:
        """The same images on a device."""
        return ArrayStore(self._images.to(device))


class FileStore(Dataset[Any]):
    """Image files below a folder, decoded when they are read, each compared with its checksum."""

    whole: Tensor | None = None

    def __init__(
        self, root: Path, index: NDArray[Any], side: int, channels: int, workers: int
    ) -> None:
        """Take an index, a structured array of path (bytes, below `root`), size and sha256."""
        self.side, self.channels = side, channels
        self._root, self._index, self._workers = root, index, workers

    def __len__(self) -> int:
        """The number of images."""
        return len(self._index)

    def path(self, row: int) -> Path:
        """The file of an image."""
        return self._root / os.fsdecode(self._index["path"][row])

    def fetch(self, rows: Tensor) -> Tensor:
        """Decode in this process."""
        return self._sound(self[rows.numpy()])[1]

    def read(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Decode in worker processes, some batches ahead."""
        for answer in load_ahead(self, order, self._workers):
            yield self._sound(answer)

    def to(self, device: torch.device) -> FileStore:
        """Files stay where they are."""
        return self

    def __getitem__(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, str]:
        """Rows `(B,)`, their images, and what is wrong: a worker's exception would lose its form.

        The only loop over images: each is a file of its own.
        """
        asked = torch.from_numpy(rows)
        pixels = np.empty((len(rows), self.side, self.side, self.channels), np.uint8)
        for place, row in enumerate(rows.tolist()):
            path = self.path(row)
            try:
                content = read_image(path)
                if hashlib.sha256(content).digest() != self._index["sha256"][row].tobytes():
                    return asked, torch.empty(0), f"{path} has changed since it was prepared"
                pixels[place] = decode(content, self.side).pixels[..., : self.channels]
            except (OSError, ValueError) as error:
                return asked, torch.empty(0), f"{path} cannot be read: {error}"
        return asked, torch.from_numpy(pixels), ""

    @staticmethod
    def _sound(answer: tuple[Tensor, Tensor, str]) -> tuple[Tensor, Tensor]:
        rows, pixels, fault = answer
        if fault:
            raise ValueError(
                f"{fault}; put it back, or prepare the images as they are now: "
                "dvc repro --single-item --force prepare"
            )
        return rows, pixels


def load_ahead(dataset: Dataset[Any], order: Iterable[Tensor], workers: int) -> Iterator[Any]:
    """What `dataset` makes of each batch of rows in `order`, by worker processes, some ahead.

    Rows go to the workers as arrays, which are copied: a tensor would be lent through a socket,
    and fail loudly in a worker that is about to be ended.

    Raises:
        OSError: if a worker died, as where shared memory is short.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,
        sampler=(rows.numpy() for rows in order),
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        worker_init_fn=_prepare_worker,
        pin_memory=torch.cuda.is_available(),
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "worker" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise OSError(
            f"a process that decodes images died ({reason}); give /dev/shm more room, or lower "
            "runtime.workers (0: no such processes)"
        ) from None


def worker_count(workers: int | Literal["auto"]) -> int:
    """How many processes decode: `auto` is one a core that this process may use."""
    return min(_MOST_WORKERS, len(os.sched_getaffinity(0))) if workers == "auto" else workers


def _prepare_worker(worker: int) -> None:
    """Ctrl-C and SIGTERM reach a whole group: the main process saves, then ends its workers.

    Should it be ended at once, they have nothing to say of the tensors that it did not fetch.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    usual = sys.excepthook

    def hook(kind: type[BaseException], *rest: Any) -> None:
        if not issubclass(kind, ConnectionError):
            usual(kind, *rest)

    sys.excepthook = hook
