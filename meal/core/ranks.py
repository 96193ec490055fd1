"""The processes that run a stage together: one, or several ranks that torchrun's launcher started.

Everything that decides a number is a function of the global position in a batch or a split, so the
result does not depend on how many ranks there are. The first rank alone prints and writes.
"""

from __future__ import annotations

import os

from meal.core.errors import UserError

_LAUNCHED = "TORCHELASTIC_RUN_ID"  # set by the launcher, for the processes that it starts


def size() -> int:
    """The number of ranks, over all machines."""
    return int(os.environ["WORLD_SIZE"]) if _LAUNCHED in os.environ else 1


def rank() -> int:
    """The number of this rank, from 0."""
    return int(os.environ["RANK"]) if _LAUNCHED in os.environ else 0


def local_rank() -> int:
    """The number of this rank on its machine, from 0: that of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if _LAUNCHED in os.environ else 0


def local_size() -> int:
    """The number of ranks on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if _LAUNCHED in os.environ else 1


def on_first_machine() -> bool:
    """Whether the first rank is on this machine, too."""
    return os.environ.get("GROUP_RANK", "0") == "0"


def is_first() -> bool:
    """Whether this rank prints and writes."""
    return rank() == 0


def own(count: int) -> slice:
    """This rank's contiguous range of `count` items; those of all ranks differ by at most 1."""
    return of_rank(count, rank())


def ranges(count: int) -> list[slice]:
    """The contiguous range of `count` items of each rank."""
    return [of_rank(count, which) for which in range(size())]


def of_rank(count: int, which: int) -> slice:
    """The contiguous range of `count` items that belongs to rank `which`."""
    return slice(*(-(-count * each // size()) for each in (which, which + 1)))


def check_divisible(key: str, batch: int, images: int) -> int:
    """The size of batches: all images if there are fewer than in a batch.

    Args:
        key: sets the size, for messages.
        batch: the number of images that it asks for.
        images: how many there are.

    Raises:
        UserError: if they cannot be divided among the ranks.
    """
    found = min(batch, images)
    if found % size():
        most = "" if images >= batch else f" of at most {images}, the images that there are"
        raise UserError(
            f"{key}={batch}: a batch of {found} images cannot be divided among {size()} processes; "
            f"allowed: a multiple of {size()}{most}, or another runtime.processes"
        )
    return found
