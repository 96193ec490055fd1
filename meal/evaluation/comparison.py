"""Two models on the same test images: how far apart, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meal.evaluation.predictions import BASELINE, ENSEMBLE, STUDENT, ModelAnswers, Predictions
from meal.evaluation.significance import (
    CONFIDENCE,
    NOISE,
    Interval,
    McNemar,
    error_difference,
    mcnemar,
    paired_bootstrap,
    verdict,
)
from meal.metrics import Labels

ERROR = "top-1 error (points)"
RIVALS = {ENSEMBLE: "ensemble", BASELINE: "baseline"}  # of the student, as people call them


@dataclass(frozen=True)
class Comparison:
    """The first model less the second: intervals by measure, and McNemar's test."""

    intervals: dict[str, Interval]
    mcnemar: McNemar

    def reading(self, measure: str) -> str:
        """What a measure says; of the error, no more than McNemar's test finds."""
        if measure == ERROR and self.mcnemar.p >= 1 - CONFIDENCE:
            return NOISE
        return self.intervals[measure].reading


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

    def stacked(runs: Sequence[ModelAnswers], of: Callable[[ModelAnswers], Any]) -> Any:
        rows = [of(run) for run in runs]
        return np.stack(rows) if len(rows) > 1 else rows[0]

    def lower(of: Callable[[ModelAnswers], Any]) -> Interval:
        return paired_bootstrap(stacked(first, of) - stacked(second, of))

    right = [stacked(runs, lambda run: run.answers == labels) for runs in (first, second)]
    return {
        ERROR: error_difference(right[0], right[1]),
        "NLL": lower(lambda run: -run.log_likelihood.astype(np.float64)),
        "Brier score": lower(lambda run: run.brier.astype(np.float64)),
    }


def significance_rows(predictions: Predictions) -> dict[str, dict[str, float]]:
    """The student's error less its rivals', as `reports/metrics.json` keeps it."""
    rows = {}
    right = predictions.correct(STUDENT)
    for rival in RIVALS:
        other = predictions.correct(rival)
        interval, test = error_difference(right, other), mcnemar(right, other)
        rows[f"student_minus_{rival}"] = {
            "points": round(interval.difference, 4),
            "low": round(interval.low, 4),
            "high": round(interval.high, 4),
            "mcnemar_p": float(f"{test.p:.4g}"),
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
            f"{interval.low:+.2f} to {interval.high:+.2f}); "
            f"{verdict(interval, row['mcnemar_p'], name)}."
        )
    return sentences
