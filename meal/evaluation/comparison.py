"""Two models on the same test images: how far apart they are, and whether that is just noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meal.evaluation.predictions import (
    BASELINE,
    ENSEMBLE,
    STUDENT,
    ModelPredictions,
    Predictions,
)
from meal.evaluation.significance import (
    CONFIDENCE,
    NOISE,
    Interval,
    McNemar,
    error_difference,
    mcnemar,
    paired_bootstrap,
    seeds_difference,
    verdict,
)
from meal.metrics import Labels

ERROR = "top-1 error (points)"
RIVALS = (ENSEMBLE, BASELINE)  # the student's


@dataclass(frozen=True)
class Comparison:
    """The first model minus the second: intervals by metric, and McNemar's test."""

    intervals: dict[str, Interval]
    mcnemar: McNemar

    def reading(self, metric: str) -> str:
        """What an interval says; for the error, McNemar's test must agree."""
        if metric == ERROR and self.mcnemar.p >= 1 - CONFIDENCE:
            return NOISE
        return self.intervals[metric].reading


def compare_models(labels: Labels, first: ModelPredictions, second: ModelPredictions) -> Comparison:
    """Compare two models' predictions for the same test images."""
    found = compare_seeds(labels, [first], [second])
    return Comparison(found, mcnemar(first.predicted == labels, second.predicted == labels))


def compare_seeds(
    labels: Labels,
    first: Sequence[ModelPredictions],
    second: Sequence[ModelPredictions],
    paired: bool = False,
) -> dict[str, Interval]:
    """Compare runs with several seeds; the intervals span images and seeds.

    Args:
        labels: of the test images, `(N,)`.
        first, second: the runs of each side.
        paired: whether both sides have the same seeds, in the same order.
    """

    def difference(of: Callable[[ModelPredictions], Any]) -> Interval:
        sides = [np.stack([of(run) for run in runs]) for runs in (first, second)]
        if len(first) == len(second) == 1:
            return paired_bootstrap(sides[0][0] - sides[1][0])
        return seeds_difference(sides[0], sides[1], paired=paired)

    correct = [np.stack([run.predicted == labels for run in runs]) for runs in (first, second)]
    return {
        ERROR: error_difference(correct[0], correct[1], paired=paired),
        "NLL": difference(lambda run: -run.log_likelihood.astype(np.float64)),
        "Brier score": difference(lambda run: run.brier.astype(np.float64)),
    }


def compare_with_rivals(predictions: Predictions) -> dict[str, Comparison]:
    """The student compared with each rival, by the rival's name."""
    student = predictions.models[STUDENT]
    return {
        rival: compare_models(predictions.labels, student, predictions.models[rival])
        for rival in RIVALS
    }


def significance_metrics(comparisons: Mapping[str, Comparison]) -> dict[str, dict[str, float]]:
    """The student's error minus each rival's, as stored in `reports/scores.json`."""
    rows = {}
    for rival, comparison in comparisons.items():
        interval = comparison.intervals[ERROR]
        rows[f"student_minus_{rival}"] = {
            "points": round(interval.difference, 4),
            "low": round(interval.low, 4),
            "high": round(interval.high, 4),
            "mcnemar_p": float(f"{comparison.mcnemar.p:.4g}"),
        }
    return rows


def significance_table(comparisons: Mapping[str, Comparison]) -> list[dict[str, str]]:
    """The student minus each rival in every metric, for the page of results."""
    return [
        {
            "models": f"student minus {rival}",
            "metric": metric,
            **{
                key: f"{getattr(interval, key):+.{2 if metric == ERROR else 4}f}"
                for key in ("difference", "low", "high")
            },
            "mcnemar_p": comparison.mcnemar.shown if metric == ERROR else "",
            "reading": comparison.reading(metric),
        }
        for rival, comparison in comparisons.items()
        for metric, interval in comparison.intervals.items()
    ]


def claims(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences on what can be claimed about the student, from `reports/scores.json`."""
    sentences = []
    for rival in RIVALS:
        row = metrics["significance"][f"student_minus_{rival}"]
        interval = Interval(row["points"], row["low"], row["high"])
        sentences.append(
            f"Student against {rival}: {interval.difference:+.2f} points of error (95%: "
            f"{interval.low:+.2f} to {interval.high:+.2f}); "
            f"{verdict(interval, row['mcnemar_p'], rival)}."
        )
    return sentences
