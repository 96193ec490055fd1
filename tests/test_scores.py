from __future__ import annotations

import numpy as np

from meal.scores import agreement, score

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05]])
LABELS = np.array([0, 2, 2, 1])


def test_agreement_compares_predictions() -> None:
    other = PROBABILITIES[:, [0, 2, 1]]
    assert agreement(np.log(PROBABILITIES), np.log(other)) == 50.0


def test_gain_is_positive_if_the_student_has_a_lower_error() -> None:
    right = np.log(np.full((4, 3), 0.05) + 0.85 * np.eye(3)[LABELS])
    scores = score(
        {
            "student": right,
            "baseline": np.log(PROBABILITIES),
            "ensemble": right,
            "ensemble_fitted": np.log(PROBABILITIES),
        },
        {"one": np.log(PROBABILITIES), "two": right},
        LABELS,
    )
    assert scores["gain"] == {
        "over_baseline": 50.0,
        "over_best_teacher": 0.0,
        "over_ensemble": 0.0,
        "over_ensemble_fitted": 50.0,
    }
    assert scores["agreement"] == {"student_ensemble": 100.0}
    assert scores["teachers"]["one"]["top1_error"] == 50.0
