"""Metrics and predictions of all models on the test images, with one in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from meal.evaluation.comparison import Comparison, compare_with_rivals, significance_metrics
from meal.evaluation.metrics import agreements, full_summary, majority_vote
from meal.evaluation.predictions import (
    BASELINE,
    ENSEMBLE,
    FITTED,
    STUDENT,
    TEACHER,
    ModelPredictions,
    Predictions,
)
from meal.metrics import Floats, Labels
from meal.scores import brief, gains


@dataclass(frozen=True)
class ModelOutputs:
    """A model's name in `Predictions`, and its log-probabilities `(N, C)`."""

    name: str
    test: Floats
    validation: Floats


@dataclass(frozen=True)
class Scores:
    """What `evaluate` reports.

    Attributes:
        metrics: `reports/scores.json` without the costs: shallow, with rounded numbers.
        predictions: of every model.
        comparisons: of the student with each rival.
    """

    metrics: dict[str, Any]
    predictions: Predictions
    comparisons: dict[str, Comparison]


def headline(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The few numbers that DVC compares between revisions, from all scores with the costs."""
    cost, keys = scores["cost"], ("over_baseline", "over_ensemble")
    return {
        **{name: brief(scores[name]) for name in (STUDENT, BASELINE, ENSEMBLE)},
        "gain": {key: scores["gain"][key] for key in keys},
        "cost": {
            "percent_of_ensemble": round(100 * cost["student_macs"] / cost["ensemble_macs"], 2)
        },
    }


def score_models(
    outputs: Iterable[ModelOutputs],
    labels: Labels,
    validation_labels: Labels,
    card: Mapping[str, Any],
) -> Scores:
    """Score every model.

    Args:
        outputs: the models, teachers before the ensemble; each is dropped before the next is
            requested.
        labels: of the test images, `(N,)`.
        validation_labels: of the validation images, for fitting temperatures.
        card: the facts about the test images that `Predictions` holds.
    """
    models: dict[str, ModelPredictions] = {}
    summaries: dict[str, dict[str, float]] = {}
    vote = np.zeros_like(labels)
    for model in outputs:
        models[model.name] = ModelPredictions.of(model.test, labels)
        summaries[model.name] = full_summary(
            model.test, labels, model.validation, validation_labels
        )
        if model.name == ENSEMBLE:
            members = [each.predicted for key, each in models.items() if key.startswith(TEACHER)]
            vote = majority_vote(members, model.test)
    predictions = Predictions(labels, models, vote, card)
    comparisons = compare_with_rivals(predictions)
    metrics: dict[str, Any] = {
        name: summaries[name] for name in (ENSEMBLE, FITTED, BASELINE, STUDENT)
    }
    metrics["vote"] = {"top1_error": round(100.0 * float((vote != labels).mean()), 2)}
    metrics["teachers"] = {name: summaries[TEACHER + name] for name in predictions.teachers}
    errors = {name: 100.0 * float((~predictions.correct(name)).mean()) for name in models}
    metrics["gain"] = gains(errors, [errors[TEACHER + name] for name in predictions.teachers])
    metrics["agreement"] = agreements(
        models[STUDENT].predicted,
        models[ENSEMBLE].predicted,
        {name: each.predicted for name, each in predictions.teachers.items()},
    )
    metrics["significance"] = significance_metrics(comparisons)
    return Scores(metrics, predictions, comparisons)
