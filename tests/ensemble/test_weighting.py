from __future__ import annotations

import numpy as np
import pytest

from meal.ensemble.weighting import best_weights, fit_weights
from meal.metrics import log_softmax, negative_log_likelihood


def member(seed: int, labels: np.ndarray, skill: float) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(len(labels), 5))
    return log_softmax(noise + skill * np.eye(5)[labels])


LABELS = np.random.default_rng(0).integers(0, 5, 4000)


def mixture_nll(members: list[np.ndarray], weights: list[float]) -> float:
    mixture = sum(w * np.exp(m) for w, m in zip(weights, members, strict=True))
    return negative_log_likelihood(np.log(mixture), LABELS)


def test_a_weak_member_gets_little_weight_and_copies_share_theirs() -> None:
    good, other, weak = member(1, LABELS, 3), member(2, LABELS, 3), member(3, LABELS, 0)
    weights = fit_weights([good, other, weak], LABELS)
    assert sum(weights) == pytest.approx(1, abs=1e-5) and min(weights) >= 0
    assert weights[2] < 0.02
    assert weights[0] == pytest.approx(weights[1], abs=0.2)
    copied = fit_weights([good, good, other], LABELS)
    assert copied[0] == pytest.approx(copied[1], abs=1e-3)
    assert copied[0] + copied[1] == pytest.approx(weights[0], abs=0.03)


def test_the_best_member_has_all_the_weight() -> None:
    members = [member(1, LABELS, 1), member(2, LABELS, 3), member(3, LABELS, 2)]
    assert best_weights(members, LABELS) == [0, 1, 0]
    flat = [0.5 * member(2, LABELS, 3), member(2, LABELS, 3)]  # equal errors
    assert best_weights([log_softmax(each) for each in flat], LABELS) == [0, 1]


def test_no_other_weights_have_a_lower_nll() -> None:
    members = [member(1, LABELS, 2), member(2, LABELS, 3), member(3, LABELS, 1)]
    weights = fit_weights(members, LABELS)
    best = mixture_nll(members, weights)
    generator = np.random.default_rng(7)
    tried = [list(generator.dirichlet(np.ones(3))) for _ in range(200)] + [[1 / 3] * 3]
    assert all(best <= mixture_nll(members, other) + 1e-6 for other in tried)
    # By hand, for two members that are certain and correct on three of four images and on one.
    first = np.log(np.array([[1, 0], [1, 0], [1, 0], [1e-9, 1]]).clip(1e-9))
    second = np.log(np.array([[0, 1], [0, 1], [0, 1], [1, 1e-9]]).clip(1e-9))
    assert fit_weights([first, second], np.array([0, 0, 0, 0])) == pytest.approx(
        [0.75, 0.25], abs=1e-4
    )


def test_a_single_member_gets_all_the_weight() -> None:
    assert fit_weights([member(1, LABELS, 2)], LABELS) == [1.0]
