"""What each teacher is worth to the ensemble, from the cached outputs for the validation images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meal.evaluation.significance import NOISE, error_difference
from meal.metrics import Floats, Labels, log_softmax, negative_log_likelihood, top1_error
from meal.targets.ensemble import Ensemble

_READINGS = {"higher": "helps", "lower": "makes the ensemble worse", NOISE: NOISE}


def teachers_worth(ensemble: Ensemble, labels: Labels) -> list[dict[str, Any]]:
    """A row for each teacher, with errors in percent; one teacher is in memory at a time.

    `disagreement` is the share of images (%) for which the teacher and the mean of the others
    predict different classes; `gain` is the error of the mean of the others minus that of all, with
    its 95% interval, so positive if the teacher helps. The means have uniform weights; `weight` is
    the fitted one. A single teacher has no others.

    Args:
        ensemble: the opened caches.
        labels: of the validation images, `(N,)`.
    """
    whole: Floats = np.zeros((len(labels), 1))
    for _, own in _members(ensemble):
        whole = whole + np.exp(own)
    right = whole.argmax(axis=1) == labels
    fitted = ensemble.card["weights"]["fitted"]
    rows = []
    for weight, (name, own) in zip(fitted, _members(ensemble), strict=True):
        row: dict[str, Any] = {
            "teacher": name,
            "error": round(top1_error(own, labels), 2),
            "nll": round(negative_log_likelihood(own, labels), 4),
            "weight": round(weight, 3),
        }
        if len(ensemble.teachers) > 1:
            others = (whole - np.exp(own)).argmax(axis=1)
            row |= _beside(own.argmax(axis=1), others, labels, right)
        rows.append(row)
    return rows


def _beside(
    own: NDArray[Any], others: NDArray[Any], labels: Labels, right: NDArray[np.bool_]
) -> dict[str, Any]:
    """A teacher's predictions beside those of the mean of the others, and of all."""
    gain = error_difference(others == labels, right)
    return {
        "disagreement": round(100.0 * float((own != others).mean()), 2),
        "error_without": round(100.0 * float((others != labels).mean()), 2),
        "gain": round(gain.difference, 2),
        "low": round(gain.low, 2),
        "high": round(gain.high, 2),
        "reading": _READINGS[gain.reading],
    }


def _members(ensemble: Ensemble) -> Iterator[tuple[str, Floats]]:
    """Each teacher's name and log-probabilities for the validation images."""
    for name, cache in ensemble.members.items():
        yield name, log_softmax(cache.plain_logits("validation"))
