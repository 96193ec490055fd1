"""Metrics on test images, beyond those in `meal.metrics`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from meal.metrics import (
    Floats,
    Labels,
    calibration_error,
    log_softmax,
    row_slices,
    summary,
)

TOP = 5
TEMPERATURES = (0.05, 20.0)


def top5_error(log_probabilities: Floats, labels: Labels) -> float:
    """The fraction of images whose label is not among the five most likely classes, in percent."""
    from sklearn.metrics import top_k_accuracy_score

    classes = np.arange(log_probabilities.shape[1])
    correct = sum(
        top_k_accuracy_score(own, values, k=TOP, labels=classes, normalize=False)
        for values, own in _chunks(log_probabilities, labels)
    )
    return 100.0 * (1 - float(correct) / len(labels))


def brier_scores(log_probabilities: Floats, labels: Labels) -> Floats:
    """The squared distance `(N,)` between the probabilities and the one-hot label (Brier, 1950)."""
    scores = []
    for values, own_labels in _chunks(log_probabilities, labels):
        probabilities = np.exp(values)
        own = probabilities[np.arange(len(own_labels)), own_labels]
        scores.append((probabilities**2).sum(axis=1) - 2 * own + 1)
    return np.concatenate(scores)


def fit_temperature(log_probabilities: Floats, labels: Labels) -> float:
    """The temperature that minimises the NLL (Guo et al., ICML 2017), within `TEMPERATURES`.

    If every prediction is correct, there is no minimum, and the result is the lower bound.
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
    """Yield a few images at a time, to bound the memory of temporaries."""
    for rows in row_slices(len(labels)):
        yield log_probabilities[rows], labels[rows]


def _scaled_calibration_error(
    log_probabilities: Floats, labels: Labels, temperature: float
) -> float:
    """The calibration error, in percent, after temperature scaling."""
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
    """All metrics of a model, rounded for comparison.

    Args:
        log_probabilities: on test images, `(N, C)`.
        labels: of the test images, `(N,)`.
        validation: on validation images, for fitting the temperature.
        validation_labels: of the validation images.
    """
    temperature = fit_temperature(validation, validation_labels)
    metrics = summary(log_probabilities, labels)
    if log_probabilities.shape[1] > TOP:
        metrics["top5_error"] = round(top5_error(log_probabilities, labels), 2)
    metrics["brier"] = round(float(brier_scores(log_probabilities, labels).mean()), 4)
    scaled = _scaled_calibration_error(log_probabilities, labels, temperature)
    metrics["ece_scaled"] = round(scaled, 2)
    metrics["temperature"] = round(temperature, 3)
    return metrics


def class_errors(predicted: Labels, labels: Labels, classes: int) -> list[float]:
    """The fraction of wrong predictions for each class, in percent; NaN for one without images."""
    images = np.bincount(labels, minlength=classes)
    wrong = np.bincount(labels[predicted != labels], minlength=classes)
    with np.errstate(invalid="ignore"):
        return np.round(100 * wrong / images, 2).tolist()


def confusion(predicted: Labels, labels: Labels, classes: int) -> NDArray[np.int64]:
    """Counts `(classes, classes)`: the row is the label, the column the prediction."""
    from sklearn.metrics import confusion_matrix

    return np.asarray(confusion_matrix(labels, predicted, labels=np.arange(classes)))


def majority_vote(predicted: Sequence[Labels], mean: Floats) -> Labels:
    """The class `(N,)` that most members predict; ties go to the larger mean probability.

    Args:
        predicted: by each member `(N,)`.
        mean: log of the members' mean probability `(N, C)`.
    """
    chosen = np.empty(len(mean), np.int64)
    for rows in row_slices(len(mean)):
        votes = np.zeros_like(mean[rows])
        for member in predicted:
            votes[np.arange(len(votes)), member[rows]] += 1
        # Half a probability is less than 1, so it never outweighs a vote.
        chosen[rows] = (votes + 0.5 * np.exp(mean[rows])).argmax(axis=1)
    return chosen


def agreements(
    student: Labels, ensemble: Labels, teachers: Mapping[str, Labels]
) -> dict[str, float | dict[str, float]]:
    """How often the student predicts the same as the ensemble, and each teacher, in percent."""

    def agreed(other: Labels) -> float:
        return round(100.0 * float((student == other).mean()), 2)

    return {
        "student_ensemble": agreed(ensemble),
        "student_teachers": {name: agreed(predicted) for name, predicted in teachers.items()},
    }
