"""What ranks exchange. With one rank, each function returns what it was given."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from meal.core import ranks
from meal.core.orphans import leave_with_first, stay_without_first

T = TypeVar("T")


def join(device: torch.device) -> None:
    """Meet the other ranks of this stage."""
    if ranks.size() > 1 and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        # Ranks wait for each other as long as it takes: the launcher ends them if one dies.
        dist.init_process_group(backend, timeout=timedelta(days=7))
        leave_with_first(broadcast(os.getpid()))


def leave() -> None:
    """Part from the other ranks, all at once."""
    if dist.is_initialized():
        stay_without_first()
        barrier()
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all ranks."""
    broadcast(None)


def broadcast(value: T) -> T:
    """The first rank's `value`, which can be pickled."""
    if ranks.size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def collect(value: T) -> list[T]:
    """The `value` of each rank, which can be pickled."""
    if ranks.size() == 1:
        return [value]
    values: list[Any] = [None] * ranks.size()
    dist.all_gather_object(values, value)
    return values


def share_ranges(values: Tensor, ranges: list[slice]) -> None:
    """Give all ranks the rows that each has computed, in place.

    Args:
        values: `(N, ...)`, on the CPU; this rank has filled in the rows of its range.
        ranges: of each rank; where they overlap, the ranks have computed the same.
    """
    if ranks.size() > 1:
        for source, rows in enumerate(ranges):
            if rows.stop > rows.start:
                dist.broadcast(values[rows], src=source)


def gather(values: Tensor) -> Tensor:
    """The whole batch `(N, ...)` from each rank's equal part of it `(N / ranks, ...)`.

    All ranks must compute the same loss of the whole batch from it. Each then has the gradient of
    its own part, times the number of ranks, by which the mean over ranks (DDP) divides it.
    """
    if ranks.size() == 1:
        return values
    gathered: Tensor = _Gather.apply(values, False)
    return gathered.flatten(0, 1)


def gather_statistics(values: Tensor) -> Tensor:
    """The values of all ranks, `(ranks, ...)`; the gradient is the sum of all ranks' gradients."""
    gathered: Tensor = _Gather.apply(values, True)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, values: Tensor, differ: bool) -> Tensor:
        ctx.differ = differ  # type: ignore[attr-defined]
        gathered = values.new_empty(ranks.size(), *values.shape)
        # As bytes, since not every type can be sent.
        dist.all_gather([_bytes(part) for part in gathered], _bytes(values.contiguous()))
        return gathered

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        if ctx.differ:  # type: ignore[attr-defined]
            gradient = gradient.contiguous()
            dist.all_reduce(gradient)
            return gradient[ranks.rank()], None
        return gradient[ranks.rank()] * ranks.size(), None


def _bytes(values: Tensor) -> Tensor:
    return values.reshape(-1).view(torch.uint8)
