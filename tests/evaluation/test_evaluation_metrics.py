"""Metrics, compared with values computed by hand or by another library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from meal.evaluation.metrics import (
    agreements,
    brier_scores,
    class_errors,
    confusion,
    fit_temperature,
    full_summary,
    majority_vote,
    top5_error,
)
from meal.metrics import calibration_bins, expected_calibration_error, log_softmax

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(size=(400, 12))
LABELS = GENERATOR.integers(0, 12, 400)
LOG_PROBABILITIES = log_softmax(LOGITS)


def test_top5_by_hand() -> None:
    likely = np.log(np.array([[7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6, 7]]) / 28)
    assert top5_error(likely, np.array([4, 1])) == 50.0  # the fifth, and the sixth
    assert top5_error(likely, np.array([0, 2])) == 0.0


def test_brier_by_hand() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    scores = brier_scores(np.log(probabilities), np.array([0, 1]))
    assert scores == pytest.approx([0.09 + 0.04 + 0.01, 0.01 + 0.81 + 0.64])
    two = np.array([0.3, 0.9, 0.5])
    ours = brier_scores(np.log(np.stack([1 - two, two], axis=1)), np.array([0, 1, 1]))
    assert ours.mean() == pytest.approx(2 * brier_score_loss([0, 1, 1], two))


def test_the_fitted_temperature_undoes_a_known_one() -> None:
    """With labels drawn from the probabilities, the best temperature is the one applied to them."""
    logits = np.random.default_rng(1).normal(size=(20_000, 5)) * 2
    probabilities = np.exp(log_softmax(logits))
    draws = np.random.default_rng(2).random(len(logits))
    labels = np.minimum((probabilities.cumsum(axis=1) < draws[:, None]).sum(axis=1), 4)
    assert fit_temperature(log_softmax(logits * 3), labels) == pytest.approx(3, rel=0.05)
    overconfident = log_softmax(logits * 3)
    before = expected_calibration_error(overconfident, labels)
    after = full_summary(overconfident, labels, overconfident, labels)
    assert before > 10 and after["ece_scaled"] < 1.5
    assert after["temperature"] == pytest.approx(3, rel=0.05)
    assert "top5_error" not in after  # meaningless with five classes


def test_calibration_bins_by_hand() -> None:
    confidence = np.array([0.05, 0.55, 0.6, 1.0])
    bins = calibration_bins(confidence, np.array([False, True, False, True]), bins=2)
    assert bins["images"].tolist() == [1, 3]
    assert bins["confidence"] == pytest.approx([0.05, 2.15 / 3])
    assert bins["accuracy"] == pytest.approx([0, 2 / 3])


def test_confusion_and_class_errors_by_hand() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 0, 0])
    counts = confusion(predicted, labels, 3)  # class 2 has no images
    assert counts.tolist() == [[1, 1, 0], [2, 1, 0], [0, 0, 0]]
    errors = class_errors(predicted, labels, 3)
    assert errors[:2] == [50.0, 66.67]
    assert math.isnan(errors[2])  # an untested class is not free of errors


def test_a_vote_counts_members_and_breaks_ties_by_probability() -> None:
    mean = np.log(np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.1, 0.2, 0.7]]))
    members = [np.array([1, 0, 0]), np.array([1, 1, 1]), np.array([0, 2, 2])]
    # Two of three outvote the mean; a tie; a tie.
    assert majority_vote(members, mean).tolist() == [1, 2, 2]


def test_agreement_with_the_ensemble_and_with_each_teacher() -> None:
    student = np.array([0, 1, 2, 2])
    found = agreements(student, np.array([0, 1, 2, 0]), {"a": student, "b": 3 - student})
    assert found == {"student_ensemble": 75.0, "student_teachers": {"a": 100.0, "b": 0.0}}
