from __future__ import annotations

import numpy as np
import pytest

from meal.metrics import (
    expected_calibration_error,
    log_softmax,
    negative_log_likelihood,
    top1_error,
)

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05]])
LABELS = np.array([0, 2, 2, 1])


def test_error_is_the_fraction_of_wrong_predictions() -> None:
    assert top1_error(np.log(PROBABILITIES), LABELS) == 50.0


def test_likelihood_by_hand() -> None:
    expected = -(np.log(0.7) + np.log(0.3) + np.log(0.4) + np.log(0.05)) / 4
    assert negative_log_likelihood(np.log(PROBABILITIES), LABELS) == pytest.approx(expected)


def test_calibration_by_hand() -> None:
    # Confidences 0.7, 0.6, 0.4 and 0.9 fall into four bins: correct, wrong, correct, wrong.
    expected = 100 * (abs(1 - 0.7) + abs(0 - 0.6) + abs(1 - 0.4) + abs(0 - 0.9)) / 4
    assert expected_calibration_error(np.log(PROBABILITIES), LABELS) == pytest.approx(expected)


def test_calibration_averages_within_a_bin() -> None:
    predictions = np.log(np.array([[0.8, 0.2]] * 5))
    labels = np.array([0, 0, 0, 0, 1])  # four of five correct at confidence 0.8: calibrated
    assert expected_calibration_error(predictions, labels) == pytest.approx(0, abs=1e-9)


def test_calibration_at_full_confidence() -> None:
    assert expected_calibration_error(np.array([[0.0, -np.inf]]), np.array([0])) == 0


def test_log_softmax_survives_large_logits() -> None:
    log_probabilities = log_softmax(np.array([[1000.0, 0.0], [-1000.0, 0.0]]))
    assert np.allclose(log_probabilities, [[0, -1000], [-1000, 0]])
