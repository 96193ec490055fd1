"""Validation between epochs: the plain validation images, which alone choose the best epoch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from meal.data.pipelines import PlainPipeline
from meal.data.prepared import Prepared
from meal.metrics import log_softmax, negative_log_likelihood, top1_error
from meal.nets.inference import plain_logits


def validator(data: Prepared, device: torch.device) -> Callable[[nn.Module], dict[str, float]]:
    """A function from a network in eval mode to its error (percent) and likelihood loss (nats)."""
    labels = data.labels("validation").numpy()
    pipeline = PlainPipeline.of(data, "validation", device)

    def validate(network: nn.Module) -> dict[str, float]:
        answers = log_softmax(plain_logits(network, pipeline))
        return {
            "top1_error": round(top1_error(answers, labels), 4),
            "nll": round(negative_log_likelihood(answers, labels), 6),
        }

    return validate
