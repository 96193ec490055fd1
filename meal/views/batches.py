"""Batches of image indices: each is a pure function of a seed and the number of its step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from meal.core.seeds import derive_seed


@dataclass(frozen=True)
class Visits:
    """Endless passes over images, each in an order of its own.

    An incomplete last batch of a pass is dropped: few images spoil BatchNorm's statistics, and each
    pass drops different ones. Fewer images than `batch_size` are one batch.

    Attributes:
        rows: the images `(N,)`, on the CPU.
        batch_size: images per batch.
        seed: decides the orders.
    """

    rows: Tensor
    batch_size: int
    seed: int

    @property
    def steps(self) -> int:
        """The number of batches in a pass."""
        return max(1, len(self.rows) // self.batch_size)

    def batches(self, first: int) -> Iterator[tuple[int, Tensor]]:
        """The number of the pass and the images `(batch_size,)` of step `first` and all later ones.

        Steps and passes are counted from 0.
        """
        size = min(self.batch_size, len(self.rows))
        number, step = divmod(first, self.steps)
        while True:
            order = self.rows[self._order(number)]
            for start in range(step * size, self.steps * size, size):
                yield number, order[start : start + size]
            number, step = number + 1, 0

    def _order(self, number: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, number))
        return torch.randperm(len(self.rows), generator=generator)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """The number of batches in an epoch of `count` images."""
    return max(1, count // batch_size)
