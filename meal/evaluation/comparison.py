"""Two models on the same test images: how far apart, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meal.evaluation.predictions import BASELINE, ENSEMBLE, STUDENT, ModelAnswers, Predictions
from meal.evaluation.significance import (
    Interval,
    McNemar,
    error_difference,
    mcnemar,
    paired_bootstrap,
    verdict,
)
from meal.metrics import Labels

RIVALS = {ENSEMBLE: "ensemble", BASELINE: "baseline"}  # of the student, as people call them


@dataclass(frozen=True)
class Comparison:
    """The first model less the second, by measure; McNemar's test where they are single models."""

    intervals: dict[str, Interval]
    mcnemar: McNemar


def compare_models(labels: Labels, first: ModelAnswers, second: ModelAnswers) -> Comparison:
    """Compare two models' answers to the same test images."""
    found = compare_seeds(labels, [first], [second])
    return Comparison(found, mcnemar(first.answers == labels, second.answers == labels))


def compare_seeds(
    labels: Labels, first: Sequence[ModelAnswers], second: Sequence[ModelAnswers]
) -> dict[str, Interval]:
    """Compare runs of several seeds, pair by pair: images and seeds are both resampled.

    Args:
        labels: of the test images, `(N,)`.
        first, second: as many runs each, paired in their order.
    """

    def stacked(runs: Sequence[ModelAnswers], field: str) -> Any:
        return np.stack([getattr(run, field).astype(np.float64) for run in runs])

    right = [np.stack([run.answers == labels for run in runs]) for runs in (first, second)]
    likelihoods = stacked(second, "log_likelihood") - stacked(first, "log_likelihood")
    return {
        "top-1 error (points)": error_difference(right[0], right[1]),
        "NLL": paired_bootstrap(likelihoods),
        "Brier score": paired_bootstrap(stacked(first, "brier") - stacked(second, "brier")),
    }


def significance_rows(predictions: Predictions) -> dict[str, dict[str, float]]:
    """The student's error less its rivals', as `reports/metrics.json` keeps it."""
    rows = {}
    right = predictions.correct(STUDENT)
    for rival in RIVALS:
        other = predictions.correct(rival)
        interval, test = error_difference(right, other), mcnemar(right, other)
        rows[f"student_minus_{rival}"] = {
            "points": round(interval.difference, 2),
            "low": round(interval.low, 2),
            "high": round(interval.high, 2),
            "mcnemar_p": round(test.p, 4),
        }
    return rows


def claims(metrics: Mapping[str, Any]) -> list[str]:
    """What may be claimed of the student, in sentences, from `reports/metrics.json`."""
    sentences = []
    for rival, name in RIVALS.items():
        row = metrics["significance"][f"student_minus_{rival}"]
        interval = Interval(row["points"], row["low"], row["high"])
        sentences.append(
            f"Student against {name}: {interval.difference:+.2f} points of error (95%: "
            f"{interval.low:+.2f} to {interval.high:+.2f}); {verdict(interval, name)}."
        )
    return sentences
