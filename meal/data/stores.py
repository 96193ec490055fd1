"""The pixels of a split: an array in memory, or files that worker processes decode.

Both stores give the same pixels for the same files.
"""

from __future__ import annotations

import hashlib
import multiprocessing.queues
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

from meal.core import ranks
from meal.core.errors import UserError
from meal.core.text import printable
from meal.data.decoding import decode, read_image

_AHEAD = 2  # batches that each worker prepares in advance


class ImageStore(Protocol):
    """The images of a split, uint8 and square.

    Attributes:
        side: side length in pixels.
        channels: 1 or 3.
        whole: all images `(N, side, side, channels)` if they are in memory, else None.
    """

    side: int
    channels: int
    whole: Tensor | None

    def __len__(self) -> int:
        """The number of images."""

    def fetch(self, rows: Tensor) -> Tensor:
        """The images `(B, side, side, channels)` of `rows` `(B,)`, read in one call."""

    def read(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of each batch of rows in `order`, read ahead where that helps."""

    def to(self, device: torch.device) -> ImageStore:
        """The same images; on `device` if they are in memory."""


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
        """Gather the rows."""
        return self._images[rows.to(self._images.device, non_blocking=True)]

    def read(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Gather the rows of each batch."""
        for rows in order:
            yield rows, self.fetch(rows)

    def to(self, device: torch.device) -> ArrayStore:
        """The same images on a device."""
        return ArrayStore(self._images.to(device))


class FileStore(Dataset[Any]):
    """Image files below a folder, decoded on each read and compared with their checksums."""

    whole: Tensor | None = None

    def __init__(
        self, root: Path, index: NDArray[Any], side: int, channels: int, workers: int
    ) -> None:
        """Take an index: a structured array of path (bytes, below `root`), size and sha256."""
        self.side, self.channels = side, channels
        self._root, self._index, self._workers = root, index, workers

    def __len__(self) -> int:
        """The number of images."""
        return len(self._index)

    def path(self, row: int) -> Path:
        """The path of an image's file."""
        return self._root / os.fsdecode(self._index["path"][row])

    def fetch(self, rows: Tensor) -> Tensor:
        """Decode in this process."""
        return self._intact(self[rows.numpy()])[1]

    def read(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Decode in worker processes, a few batches ahead."""
        for batch in load_ahead(self, order, self._workers):
            yield self._intact(batch)

    def to(self, device: torch.device) -> FileStore:
        """Files stay where they are."""
        return self

    def __getitem__(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, str]:
        """Rows `(B,)`, their images, and an error message in place of an exception.

        A worker's exception would reach the main process with a traceback in its message.
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
            except (OSError, UserError) as error:
                return asked, torch.empty(0), f"{path} cannot be read: {error}"
        return asked, torch.from_numpy(pixels), ""

    @staticmethod
    def _intact(batch: tuple[Tensor, Tensor, str]) -> tuple[Tensor, Tensor]:
        rows, pixels, fault = batch
        if fault:
            raise UserError(
                f"{fault}; restore it, or accept the images as they are now: "
                "dvc repro --single-item --force prepare"
            )
        return rows, pixels


def load_ahead(dataset: Dataset[Any], order: Iterable[Tensor], workers: int) -> Iterator[Any]:
    """The item of `dataset` for each batch of rows in `order`, from worker processes.

    Rows are sent as arrays, which are copied. A tensor would be passed through a socket, and a
    worker that is being terminated would fail on it with a traceback.

    Raises:
        UserError: if a worker dies, for example because shared memory runs out.
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
        raise UserError(
            f"a process that decodes images died ({reason}); enlarge /dev/shm, or lower "
            "runtime.workers (0: decode in the main process)"
        ) from None


def worker_count(workers: int | Literal["auto"]) -> int:
    """The number of decoding processes: `auto` shares out the cores that this process may use."""
    if workers != "auto":
        return workers
    return max(1, len(os.sched_getaffinity(0)) // ranks.local_size())


def _end_worker(error: Exception, _: object) -> None:
    """End a worker that cannot send a batch: the main process notices that it is gone."""
    print(f"error: {printable(error)}", file=sys.stderr, flush=True)
    os._exit(1)


def _prepare_worker(worker: int) -> None:
    """Ignore Ctrl-C and SIGTERM, which reach the whole group: the main process stops its workers.

    If the main process is killed, workers print no traceback about tensors that it never fetched.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Without this, a batch that does not fit in shared memory is dropped, and waited for forever.
    queue: Any = multiprocessing.queues.Queue
    queue._on_queue_feeder_error = staticmethod(_end_worker)
    usual = sys.excepthook

    def hook(kind: type[BaseException], *rest: Any) -> None:
        if not issubclass(kind, ConnectionError):
            usual(kind, *rest)

    sys.excepthook = hook
