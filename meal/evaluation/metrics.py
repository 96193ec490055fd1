"""What is measured of a classifier on test images, beyond `meal.metrics`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from meal.metrics import (
    Floats,
    Labels,
    calibration_error,
    log_softmax,
    summary,
)

TOP = 5
TEMPERATURES = (0.05, 20.0)
_ROWS = 8192


def top5_error(log_probabilities: Floats, labels: Labels) -> float:
    """The share of images whose label is not among the five first answers, in percent."""
    classes, wrong = np.arange(log_probabilities.shape[1]), 0
    for values, own_labels in _chunks(log_probabilities, labels):
        own = values[np.arange(len(own_labels)), own_labels][:, None]
        # How many classes come before the label; of equal ones the smaller number comes first.
        before = (values > own) | ((values == own) & (classes < own_labels[:, None]))
        wrong += int((before.sum(axis=1) >= TOP).sum())
    return 100.0 * wrong / len(labels)


def brier_scores(log_probabilities: Floats, labels: Labels) -> Floats:
    """The squared distance `(N,)` of each answer's probabilities to its label (Brier, 1950)."""
    scores = []
    for values, own_labels in _chunks(log_probabilities, labels):
        probabilities = np.exp(values)
        own = probabilities[np.arange(len(own_labels)), own_labels]
        scores.append((probabilities**2).sum(axis=1) - 2 * own + 1)
    return np.concatenate(scores)


def fit_temperature(log_probabilities: Floats, labels: Labels) -> float:
    """The temperature by which answers are divided to be likeliest (Guo et al., ICML 2017).

    Between `TEMPERATURES`; answers that are all right have none, and end at the smaller bound.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        total = 0.0
        for values, own_labels in _chunks(log_probabilities, labels):
            scaled = log_softmax(values / np.exp(log_temperature))
            total -= float(scaled[np.arange(len(own_labels)), own_labels].sum())
        return total / len(labels)

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def _chunks(log_probabilities: Floats, labels: Labels) -> Iterator[tuple[Floats, Labels]]:
    """Some images at a time: what is derived from them takes bounded memory."""
    for start in range(0, len(labels), _ROWS):
        yield log_probabilities[start : start + _ROWS], labels[start : start + _ROWS]


def _scaled_calibration_error(
    log_probabilities: Floats, labels: Labels, temperature: float
) -> float:
    """The calibration error, in percent, of answers divided by a temperature."""
    confidence, correct = [], []
    for values, own_labels in _chunks(log_probabilities, labels):
        scaled = log_softmax(values / temperature)
        confidence.append(np.exp(scaled.max(axis=1)))
        correct.append(scaled.argmax(axis=1) == own_labels)
    return calibration_error(np.concatenate(confidence), np.concatenate(correct))


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
    measures = summary(log_probabilities, labels)
    if log_probabilities.shape[1] > TOP:
        measures["top5_error"] = round(top5_error(log_probabilities, labels), 2)
    measures["brier"] = round(float(brier_scores(log_probabilities, labels).mean()), 4)
    scaled = _scaled_calibration_error(log_probabilities, labels, temperature)
    measures["ece_scaled"] = round(scaled, 2)
    measures["temperature"] = round(temperature, 3)
    return measures


def class_errors(answers: Labels, labels: Labels, classes: int) -> list[float]:
    """The share of wrong answers to the images of each class, in percent; NaN where it has none."""
    images = np.bincount(labels, minlength=classes)
    wrong = np.bincount(labels[answers != labels], minlength=classes)
    with np.errstate(invalid="ignore"):
        return np.round(100 * wrong / images, 2).tolist()


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
