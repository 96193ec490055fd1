from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from meal.evaluation.comparison import compare_models
from meal.evaluation.predictions import ModelAnswers
from meal.evaluation.significance import (
    Interval,
    error_difference,
    mcnemar,
    paired_bootstrap,
    unpaired_difference,
    verdict,
)
from meal.metrics import log_softmax

GENERATOR = np.random.default_rng(0)
FIRST = GENERATOR.random(2000) < 0.90
SECOND = np.where(GENERATOR.random(2000) < 0.95, FIRST, ~FIRST)


def test_the_interval_is_that_of_scipys_bootstrap() -> None:
    interval = error_difference(FIRST, SECOND)
    differences = 100.0 * (SECOND.astype(float) - FIRST)
    theirs = stats.bootstrap(
        (differences,), np.mean, n_resamples=9999, method="percentile", rng=1, batch=100
    ).confidence_interval
    assert interval.difference == pytest.approx(differences.mean())
    assert interval.low == pytest.approx(theirs.low, abs=0.1)
    assert interval.high == pytest.approx(theirs.high, abs=0.1)


def test_the_sign_is_the_first_models_error_less_the_seconds() -> None:
    perfect, half = np.ones(100, bool), np.arange(100) % 2 == 0
    assert error_difference(half, perfect).difference == 50
    assert error_difference(half, perfect).reading == "higher"
    assert error_difference(perfect, half).reading == "lower"
    assert error_difference(half, half) == Interval(0, 0, 0)
    assert error_difference(half, half).reading == "inside the noise"


def test_a_paired_interval_is_narrower_than_an_unpaired_one() -> None:
    paired = error_difference(FIRST, SECOND)
    errors = [100 * float((~side).mean()) for side in (FIRST, SECOND)]
    apart = unpaired_difference(errors[0], errors[1], 2000)
    assert apart.difference == pytest.approx(paired.difference)
    assert apart.high - apart.low > 1.5 * (paired.high - paired.low)


def test_seeds_are_resampled_with_the_images() -> None:
    """Seeds that disagree widen the interval; copies of one seed do not narrow it."""
    noise = GENERATOR.normal(size=1000)
    one = paired_bootstrap(noise)
    copies = paired_bootstrap(np.stack([noise] * 4))
    assert copies.low == pytest.approx(one.low, abs=0.01)
    assert copies.high == pytest.approx(one.high, abs=0.01)
    apart = paired_bootstrap(np.stack([noise + shift for shift in (-1, -0.3, 0.3, 1)]))
    assert apart.high - apart.low > 4 * (one.high - one.low)


def test_equal_seeds_give_equal_intervals() -> None:
    assert error_difference(FIRST, SECOND) == error_difference(FIRST, SECOND)


def test_mcnemar_is_the_exact_test_by_hand() -> None:
    first = np.array([True] * 9 + [False] + [True] * 30)
    second = np.array([False] * 9 + [True] + [True] * 30)
    found = mcnemar(first, second)
    assert (found.first_only, found.second_only) == (9, 1)
    assert found.p == pytest.approx(2 * (1 + 10) / 2**10)  # 0 or 1 of 10 fair coins, both sides
    assert mcnemar(first, first).p == 1.0


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.5, -0.1, "better than"),
        (-0.2, 0.10, "not inferior to"),
        (0.05, 0.14, "not inferior to"),
        (-0.2, 0.40, "no difference"),
        (0.2, 0.90, "worse than"),
    ],
)
def test_not_inferior_comes_before_better(low: float, high: float, said: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high), "ensemble").startswith(said)


def test_all_measures_are_better_when_lower() -> None:
    labels = np.arange(300) % 3
    sure = log_softmax(3.0 * np.eye(3)[labels] + GENERATOR.normal(size=(300, 3)) * 0.3)
    unsure = log_softmax(0.5 * np.eye(3)[labels] + GENERATOR.normal(size=(300, 3)))
    models = [ModelAnswers.of(answers, labels) for answers in (sure, unsure)]
    found = compare_models(labels, *models)
    assert {interval.reading for interval in found.intervals.values()} == {"lower"}
    assert found.mcnemar.p < 0.01 and found.mcnemar.first_only > found.mcnemar.second_only
