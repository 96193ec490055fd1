"""What is measured of a classifier on test images, beyond `meal.metrics`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from meal.metrics import (
    Floats,
    Labels,
    expected_calibration_error,
    log_softmax,
    summary,
)

TOP = 5
_LOG_TEMPERATURES = (-3.0, 3.0)  # from 1/20 to 20


def top5_error(log_probabilities: Floats, labels: Labels) -> float:
    """The share of images whose label is not among the five first answers, in percent."""
    own = log_probabilities[np.arange(len(labels)), labels]
    # How many classes come before the label; of equal ones the smaller number comes first.
    before = (log_probabilities > own[:, None]).sum(axis=1)
    classes = np.arange(log_probabilities.shape[1])
    before += ((log_probabilities == own[:, None]) & (classes < labels[:, None])).sum(axis=1)
    return 100.0 * float((before >= TOP).mean())


def brier_scores(log_probabilities: Floats, labels: Labels) -> Floats:
    """The squared distance `(N,)` of each answer's probabilities to its label (Brier, 1950)."""
    probabilities = np.exp(log_probabilities)
    own = probabilities[np.arange(len(labels)), labels]
    scores: Floats = (probabilities**2).sum(axis=1) - 2 * own + 1
    return scores


def fit_temperature(log_probabilities: Floats, labels: Labels) -> float:
    """The temperature by which answers are divided to be likeliest (Guo et al., ICML 2017)."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(log_probabilities / np.exp(log_temperature))
        return -float(scaled[rows, labels].mean())

    found = minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded")
    return float(np.exp(found.x))


def full_summary(
    log_probabilities: Floats,
    labels: Labels,
    validation: Floats,
    validation_labels: Labels,
) -> dict[str, float]:
    """All measures of a model, rounded so that a difference is readable.

    Args:
        log_probabilities: on test images, `(N, C)`.
        labels: `(N,)`.
        validation: on validation images, where the temperature is fitted.
        validation_labels: theirs.
    """
    temperature = fit_temperature(validation, validation_labels)
    scaled = log_softmax(log_probabilities / temperature)
    measures = summary(log_probabilities, labels)
    if log_probabilities.shape[1] > TOP:
        measures["top5_error"] = round(top5_error(log_probabilities, labels), 2)
    measures["brier"] = round(float(brier_scores(log_probabilities, labels).mean()), 4)
    measures["ece_scaled"] = round(expected_calibration_error(scaled, labels), 2)
    measures["temperature"] = round(temperature, 3)
    return measures


def class_errors(answers: Labels, labels: Labels, classes: int) -> list[float]:
    """The share of wrong answers to the images of each class, in percent; 0 where it has none."""
    images = np.bincount(labels, minlength=classes)
    wrong = np.bincount(labels[answers != labels], minlength=classes)
    return [round(100 * float(w) / max(1, int(n)), 2) for w, n in zip(wrong, images, strict=True)]


def confusion(answers: Labels, labels: Labels, classes: int) -> NDArray[np.int64]:
    """Counts `(classes, classes)`: row the label, column the answer."""
    flat = np.bincount(labels * classes + answers, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def majority_vote(answers: Sequence[Labels], mean: Floats) -> Labels:
    """The answer `(N,)` that most members give; among equals the one of larger mean probability.

    Args:
        answers: the first answer of each member `(N,)`.
        mean: log of the members' mean probability `(N, C)`.
    """
    votes = np.zeros(mean.shape)
    for member in answers:
        votes[np.arange(len(member)), member] += 1
    # A probability is below one, so that it never outweighs a vote.
    return np.asarray((votes + 0.5 * np.exp(mean)).argmax(axis=1))


def agreements(
    student: Labels, ensemble: Labels, teachers: Mapping[str, Labels]
) -> dict[str, float | dict[str, float]]:
    """How often the student gives the answer of the ensemble, and of each teacher, in percent."""

    def agreed(other: Labels) -> float:
        return round(100.0 * float((student == other).mean()), 2)

    return {
        "student_ensemble": agreed(ensemble),
        "student_teachers": {name: agreed(answers) for name, answers in teachers.items()},
    }
