"""Answers of a network in eval mode to plain images, in batches that keep every bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from meal.data.pipelines import PlainPipeline

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
def plain_logits(network: nn.Module, pipeline: PlainPipeline) -> NDArray[np.float32]:
    """Logits `(N, C)`, float32, of all images of a pipeline; `network` is in eval mode."""
    answers = [
        (start, network(pipeline.plain(start, stop)).float().cpu().numpy())
        for start, stop in spans(len(pipeline), BATCH_SIZE)
    ]
    logits = np.empty((len(pipeline), answers[0][1].shape[1]), dtype=np.float32)
    for start, values in answers:
        logits[start : start + len(values)] = values
    return logits
