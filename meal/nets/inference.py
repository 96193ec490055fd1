"""Answers of a network in eval mode to plain images, in batches that keep every bit."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from meal.data.pipelines import PlainPipeline
from meal.data.prepared import Prepared, Split

_MOST = {"cpu": 512, "cuda": 8192}  # images; past these, larger batches are no faster
_LEAST = 16  # in smaller batches an image may have other bits
_SHARE = 8  # of the memory, one part in so many is for a batch


@torch.inference_mode()
def batch_size(network: nn.Module, image: Tensor) -> int:
    """How many images like `image` to answer at once: as many as memory allows, a power of two.

    Follows from the network, its input and the machine's whole memory, not from what is free: the
    same machine always cuts the same batches.

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
    if image.device.type == "cuda":
        memory = torch.cuda.get_device_properties(image.device).total_memory
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # A layer's input, its output and a shortcut live at once, with some workspace.
    fitting = memory // _SHARE // (4 * largest)
    most = _MOST.get(image.device.type, _MOST["cpu"])
    return max(_LEAST, min(most, 1 << max(0, int(fitting).bit_length() - 1)))


def spans(count: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Spans that cover `count` items, all of one length; the last may overlap the one before.

    In a batch of a few images the kernels differ, and with them the last bits of an answer. A
    short last batch is filled with images already answered instead.
    """
    size = min(batch_size, count)
    for start in range(0, count, size):
        yield min(start, count - size), min(start, count - size) + size


@torch.inference_mode()
def plain_logits(network: nn.Module, pipeline: PlainPipeline) -> NDArray[np.float32]:
    """Logits `(N, C)`, float32, of all images of a pipeline; `network` is in eval mode."""
    size = batch_size(network, torch.zeros(1, *pipeline.shape, device=pipeline.device))
    order = [torch.arange(start, stop) for start, stop in spans(len(pipeline), size)]
    answers = [
        (rows, network(images).float().cpu().numpy()) for rows, images in pipeline.batches(order)
    ]
    logits = np.empty((len(pipeline), answers[0][1].shape[1]), dtype=np.float32)
    for rows, values in answers:
        logits[rows.numpy()] = values
    return logits


def split_logits(
    network: nn.Module, data: Prepared, split: Split, device: torch.device
) -> NDArray[np.float32]:
    """Logits `(N, C)`, float32, of the plain images of a split; `network` is on `device`."""
    return plain_logits(network, PlainPipeline.of(data, split, device))
