"""Answers of a network in eval mode to plain images, in batches that keep every bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from meal.data.pipelines import PlainPipeline
from meal.data.prepared import Prepared, Split

BATCH_SIZE = 512


def spans(count: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Spans that cover `count` items, all of one length; the last may overlap the one before.

    In a batch of a few images the kernels differ, and with them the last bits of an answer. A
    short last batch is filled with images already answered instead.
    """
    size = min(batch_size, count)
    for start in range(0, count, size):
        yield min(start, count - size), min(start, count - size) + size


@torch.inference_mode()
def plain_logits(
    network: nn.Module, data: Prepared, split: Split, device: torch.device
) -> NDArray[np.float32]:
    """Logits `(N, C)`, float32, of all plain images of a split; `network` is in eval mode."""
    pipeline = PlainPipeline.of(data, split, device)
    logits = np.empty((len(pipeline), data.classes), dtype=np.float32)
    for start, stop in spans(len(pipeline), BATCH_SIZE):
        logits[start:stop] = network(pipeline.plain(start, stop)).float().cpu().numpy()
    return logits
