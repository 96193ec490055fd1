"""Batches of image indices: a shuffled epoch is a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from meal.core.seeds import derive_seed


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Shuffle indices from 0 to `count` and yield them in batches `(batch_size,)`, on the CPU.

    An incomplete last batch is dropped: few images spoil BatchNorm's statistics, and each epoch
    drops different ones. A dataset smaller than `batch_size` is one batch.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
    order = torch.randperm(count, generator=generator)
    size = min(batch_size, count)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]


def steps_per_epoch(count: int, batch_size: int) -> int:
    """How many batches `epoch_batches` yields."""
    return max(1, count // batch_size)
