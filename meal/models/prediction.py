"""Logits of a network in eval mode for plain images, in batches that do not change any bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from meal.core import ranks
from meal.core.collectives import broadcast, share_ranges
from meal.core.device import total_memory
from meal.data.prepared import Prepared, Split
from meal.views.pipelines import PlainPipeline

_MOST = {"cpu": 512, "cuda": 8192}  # images per batch; larger batches are no faster
_LEAST = 16  # smaller batches may change the last bits of an image's logits
_FRACTION = 1 / 8  # of the memory, for one batch


@torch.inference_mode()
def batch_size(network: nn.Module, image: Tensor) -> int:
    """The number of images like `image` per batch: the largest power of two that fits in memory.

    It depends on the network, its input and the total memory, not on free memory, so a machine
    always uses the same batches.

    Args:
        network: in eval mode.
        image: one input `(1, C, H, W)`, on the network's device.
    """
    largest = image.nbytes

    def measure(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.nbytes)

    hooks = [module.register_forward_hook(measure) for module in network.modules()]
    network(image)
    for hook in hooks:
        hook.remove()
    # A layer's input and output and a shortcut are live at the same time, plus some workspace.
    fitting = int(total_memory(image.device) * _FRACTION) // (4 * largest)
    most = _MOST.get(image.device.type, _MOST["cpu"])
    return max(_LEAST, min(most, 1 << max(0, fitting.bit_length() - 1)))


def spans(count: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Spans of equal length that cover `count` items; the last may overlap the previous one.

    Small batches use other kernels, which may change the last bits, so the last batch is filled up
    with images from the previous one.
    """
    size = min(batch_size, count)
    for start in range(0, count, size):
        yield min(start, count - size), min(start, count - size) + size


@torch.inference_mode()
def plain_logits(
    network: nn.Module, pipeline: PlainPipeline, rows: Tensor | None = None
) -> NDArray[np.float32]:
    """Logits `(N, C)`, float32, for images of a pipeline; `network` is in eval mode.

    Ranks share the batches, and each gets all logits.

    Args:
        network: on the pipeline's device.
        pipeline: the images.
        rows: `(N,)`, which of them; None for all.
    """
    if rows is None:
        rows = torch.arange(len(pipeline))
    size = batch_size(network, torch.zeros(1, *pipeline.shape, device=pipeline.device))
    every = list(spans(len(rows), size))
    shares = [every[own] for own in ranks.ranges(len(every))]
    mine = shares[ranks.rank()]
    batches = pipeline.batches([rows[start:stop] for start, stop in mine])
    found = [network(images).float().cpu() for _, images in batches]
    classes = broadcast(found[0].shape[1] if found else 0)  # the last rank may have none
    logits = torch.empty(len(rows), classes)
    for (start, stop), values in zip(mine, found, strict=True):
        logits[start:stop] = values
    rows_of = [slice(own[0][0], own[-1][1]) if own else slice(0, 0) for own in shares]
    share_ranges(logits, rows_of)
    return logits.numpy()


def split_logits(
    network: nn.Module,
    data: Prepared,
    split: Split,
    device: torch.device,
    rows: Tensor | None = None,
) -> NDArray[np.float32]:
    """Logits `(N, C)`, float32, for the plain images of a split, or for `rows` `(N,)` of it."""
    return plain_logits(network, PlainPipeline.of(data, split, device), rows)
