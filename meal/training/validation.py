"""Validation after each epoch, on the plain validation images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from meal.data.prepared import Prepared
from meal.metrics import Floats, log_softmax, negative_log_likelihood, top1_error
from meal.models.prediction import plain_logits
from meal.views.pipelines import PlainPipeline

Measure = Callable[[Floats], dict[str, float]]


def validator(
    data: Prepared, device: torch.device, more: Measure | None = None
) -> Callable[[nn.Module], dict[str, float]]:
    """A function from a network in eval mode to its error (percent) and NLL (nats).

    `more` adds metrics, from the logits `(N, C)` for the validation images.
    """
    labels = data.labels("validation").numpy()
    pipeline = PlainPipeline.of(data, "validation", device)

    def validate(network: nn.Module) -> dict[str, float]:
        logits = plain_logits(network, pipeline)
        log_probabilities = log_softmax(logits)
        return {
            "top1_error": round(top1_error(log_probabilities, labels), 4),
            "nll": round(negative_log_likelihood(log_probabilities, labels), 6),
            **(more(logits) if more is not None else {}),
        }

    return validate
