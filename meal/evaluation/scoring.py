"""All models on the test images, one in memory at a time: their measures and their answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from meal.evaluation.comparison import significance_rows
from meal.evaluation.metrics import agreements, full_summary, majority_vote
from meal.evaluation.predictions import (
    BASELINE,
    ENSEMBLE,
    FITTED,
    STUDENT,
    TEACHER,
    ModelAnswers,
    Predictions,
)
from meal.metrics import Floats, Labels, gains

Answered = tuple[str, Floats, Floats]  # a model, and its answers to test and validation images


def score_models(
    answered: Iterable[Answered], labels: Labels, validation_labels: Labels, card: Mapping[str, Any]
) -> tuple[dict[str, Any], Predictions]:
    """Measure every model.

    Args:
        answered: models by their name in `Predictions`, the members of the ensemble before it,
            with their log-probabilities `(N, C)`; each is dropped before the next one is asked for.
        labels: of the test images, `(N,)`.
        validation_labels: of the validation images, where temperatures are fitted.
        card: what `Predictions` says of the test images.

    Returns:
        What `reports/metrics.json` holds, but for costs: shallow, of rounded numbers; and what
        every model answers.
    """
    models: dict[str, ModelAnswers] = {}
    summaries: dict[str, dict[str, float]] = {}
    vote = np.zeros_like(labels)
    for name, test, validation in answered:
        models[name] = ModelAnswers.of(test, labels)
        summaries[name] = full_summary(test, labels, validation, validation_labels)
        if name == ENSEMBLE:
            members = [each.answers for key, each in models.items() if key.startswith(TEACHER)]
            vote = majority_vote(members, test)
    predictions = Predictions(labels, models, vote, card)
    scores: dict[str, Any] = {
        name: summaries[name] for name in (ENSEMBLE, FITTED, BASELINE, STUDENT)
    }
    scores["vote"] = {"top1_error": round(100.0 * float((vote != labels).mean()), 2)}
    scores["teachers"] = {name: summaries[TEACHER + name] for name in predictions.teachers}
    errors = {name: 100.0 * float((~predictions.correct(name)).mean()) for name in models}
    scores["gain"] = gains(errors, [errors[TEACHER + name] for name in predictions.teachers])
    scores["agreement"] = agreements(
        models[STUDENT].answers,
        models[ENSEMBLE].answers,
        {name: answers.answers for name, answers in predictions.teachers.items()},
    )
    scores["significance"] = significance_rows(predictions)
    return scores, predictions
