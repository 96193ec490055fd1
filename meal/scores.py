"""What is reported of all models together: their metrics, and what the student gains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from meal.metrics import Floats, Labels, summary, top1_error


def agreement(first: Floats, second: Floats) -> float:
    """The fraction of images for which two classifiers predict the same class, in percent."""
    return 100.0 * float((first.argmax(axis=1) == second.argmax(axis=1)).mean())


def brief(scores: Mapping[str, float]) -> dict[str, float]:
    """Error, NLL and calibration error of a model, from all its scores."""
    return {key: scores[key] for key in ("top1_error", "nll", "ece")}


def score(
    models: Mapping[str, Floats], teachers: Mapping[str, Floats], labels: Labels
) -> dict[str, Any]:
    """Metrics of every model, the student's gains, and its agreement with the ensemble.

    Args:
        models: log-probabilities `(N, C)` of `student`, `ensemble` and `ensemble_fitted`, and of
            `baseline` if known. The weights of `ensemble_fitted` are fitted on validation, so its
            scores there are too good.
        teachers: log-probabilities of the teachers, by name.
        labels: `(N,)`.

    Returns:
        A shallow dictionary of rounded numbers; errors, gains and agreement are in percent.
    """
    scores: dict[str, Any] = {name: summary(values, labels) for name, values in models.items()}
    scores["teachers"] = {name: summary(values, labels) for name, values in teachers.items()}
    errors = {name: top1_error(values, labels) for name, values in models.items()}
    scores["gain"] = gains(errors, [top1_error(values, labels) for values in teachers.values()])
    agreed = agreement(models["student"], models["ensemble"])
    scores["agreement"] = {"student_ensemble": round(agreed, 2)}
    return scores


def gains(errors: Mapping[str, float], teachers: Iterable[float]) -> dict[str, float]:
    """How much lower the student's error is than its rivals', in points.

    Args:
        errors: of `student`, `ensemble`, `ensemble_fitted`, and of `baseline` if known, not yet
            rounded.
        teachers: the errors of the teachers.
    """
    rivals = {"over_baseline": errors["baseline"]} if "baseline" in errors else {}
    rivals |= {
        "over_best_teacher": min(teachers),
        "over_ensemble": errors["ensemble"],
        "over_ensemble_fitted": errors["ensemble_fitted"],
    }
    return {name: round(rival - errors["student"], 2) for name, rival in rivals.items()}
