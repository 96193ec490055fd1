from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from meal.evaluation.comparison import compare_models
from meal.evaluation.predictions import ModelPredictions
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


def test_the_interval_agrees_with_scipys_bootstrap() -> None:
    interval = error_difference(FIRST, SECOND)
    differences = 100.0 * (SECOND.astype(float) - FIRST)
    theirs = stats.bootstrap(
        (differences,), np.mean, n_resamples=9999, method="percentile", rng=1, batch=100
    ).confidence_interval
    assert interval.difference == pytest.approx(differences.mean())
    assert interval.low == pytest.approx(theirs.low, abs=0.1)
    assert interval.high == pytest.approx(theirs.high, abs=0.1)


def test_the_difference_is_the_first_models_error_minus_the_seconds() -> None:
    perfect, half = np.ones(100, bool), np.arange(100) % 2 == 0
    assert error_difference(half, perfect).difference == 50
    assert error_difference(half, perfect).reading == "higher"
    assert error_difference(perfect, half).reading == "lower"
    assert error_difference(half, half).reading == "inside the noise"


def discordant(alone: int, other: int, images: int = 360) -> tuple[np.ndarray, np.ndarray]:
    """Two models: only the first is correct on `alone` images, only the second on `other`."""
    first, second = np.ones(images, bool), np.ones(images, bool)
    second[:alone] = False
    first[alone : alone + other] = False
    return first, second


@pytest.mark.parametrize(
    ("alone", "other", "claim"),
    [
        (0, 0, "no difference"),  # equal predictions for few images prove little
        (1, 0, "no difference"),
        (4, 0, "no difference"),  # McNemar's p is 0.125
        (0, 4, "no difference"),
        (6, 0, "better"),
        (0, 6, "worse"),
        (40, 20, "better"),
    ],
)
def test_a_claim_needs_enough_discordant_images(alone: int, other: int, claim: str) -> None:
    first, second = discordant(alone, other)
    interval, p = error_difference(first, second), mcnemar(first, second).p
    assert verdict(interval, p, "ensemble").startswith(claim)
    assert interval.difference == pytest.approx(100 * (other - alone) / 360)


def test_the_interval_is_at_least_as_wide_as_bonett_and_prices() -> None:
    interval = error_difference(*discordant(3, 1))
    centre, spread = (2 - 4) / 362, (2 + 4) / 362
    half = 1.96 * np.sqrt((spread - centre**2) / 362)
    assert interval.low == pytest.approx(100 * (centre - half))
    assert interval.high == pytest.approx(100 * (centre + half))


def test_equal_errors_on_many_images_are_not_inferior() -> None:
    first, second = discordant(10, 10, images=50_000)
    assert verdict(error_difference(first, second), 1.0, "ensemble").startswith("not inferior")


def test_a_paired_interval_is_narrower_than_an_unpaired_one() -> None:
    paired = error_difference(FIRST, SECOND)
    errors = [100 * float((~side).mean()) for side in (FIRST, SECOND)]
    apart = unpaired_difference(errors[:1], errors[1:], 2000)
    assert apart.difference == pytest.approx(paired.difference)
    assert apart.high - apart.low > 1.5 * (paired.high - paired.low)


def test_seeds_are_resampled_with_the_images() -> None:
    """Different seeds widen the interval; copies of one seed do not narrow it."""
    noise = GENERATOR.normal(size=1000)
    one = paired_bootstrap(noise)
    copies = paired_bootstrap(np.stack([noise] * 4))
    assert copies.low == pytest.approx(one.low, abs=0.01)
    assert copies.high == pytest.approx(one.high, abs=0.01)
    apart = paired_bootstrap(np.stack([noise + shift for shift in (-1, -0.3, 0.3, 1)]))
    assert apart.high - apart.low > 4 * (one.high - one.low)


def test_few_discordant_images_show_nothing_over_several_seeds_either() -> None:
    first, second = discordant(4, 0)
    assert error_difference(np.stack([first] * 3), np.stack([second] * 3)).reading == (
        error_difference(first, second).reading
    )


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_with_few_seeds_the_interval_is_that_of_students_t(seeds: int) -> None:
    """If images add no noise, the two must agree."""
    means = np.random.default_rng(seeds).normal(size=seeds)
    interval = paired_bootstrap(np.repeat(means[:, None], 50, axis=1))
    half = stats.t.ppf(0.975, seeds - 1) * means.std(ddof=1) / np.sqrt(seeds)
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.25)
    assert interval.low < means.mean() < interval.high


def test_intervals_over_three_seeds_have_their_nominal_coverage() -> None:
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(100):
        table = generator.normal(size=(3, 1)) + 3 * generator.normal(size=(1, 60))
        interval = paired_bootstrap(table + generator.normal(size=(3, 60)))
        covered += interval.low <= 0 <= interval.high
    assert covered >= 90


def test_unpaired_rates_by_hand() -> None:
    rate = (360 * 0.05 + 1) / 362
    same = unpaired_difference([5.0], [5.0], 360)
    assert same.high == pytest.approx(196 * np.sqrt(2 * rate * (1 - rate) / 362))
    assert unpaired_difference([0.0], [0.0], 360).high > 0.5  # no errors, but still uncertain
    apart = unpaired_difference([5.0, 3.0], [5.0, 6.0], 360)
    assert apart.difference == -1.5
    assert apart.high - apart.low > 5 * (same.high - same.low)  # the two seeds disagree


def test_equal_seeds_give_equal_intervals() -> None:
    assert error_difference(FIRST, SECOND) == error_difference(FIRST, SECOND)


def test_mcnemar_is_the_exact_test_by_hand() -> None:
    first = np.array([True] * 9 + [False] + [True] * 30)
    second = np.array([False] * 9 + [True] + [True] * 30)
    found = mcnemar(first, second)
    assert (found.first_only, found.second_only) == (9, 1)
    assert found.p == pytest.approx(2 * (1 + 10) / 2**10)  # 0 or 1 of 10 fair coins, two-sided
    assert mcnemar(first, first).p == 1.0


@pytest.mark.parametrize(
    ("low", "high", "p", "claim"),
    [
        (-0.5, -0.1, 0.01, "better than"),
        (-0.5, -0.1, 0.20, "not inferior to"),
        (-0.2, 0.10, 1.00, "not inferior to"),
        (0.05, 0.1499, 0.01, "not inferior to"),
        (0.05, 0.1501, 0.01, "worse than"),
        (-0.2, 0.40, 0.30, "no difference"),
        (0.2, 0.90, 0.01, "worse than"),
        (0.2, 0.90, 0.06, "no difference"),
    ],
)
def test_the_claim_follows_from_the_interval_and_mcnemars_test(
    low: float, high: float, p: float, claim: str
) -> None:
    assert verdict(Interval((low + high) / 2, low, high), p, "ensemble").startswith(claim)


def test_all_metrics_are_better_when_lower() -> None:
    labels = np.arange(300) % 3
    sure = log_softmax(3.0 * np.eye(3)[labels] + GENERATOR.normal(size=(300, 3)) * 0.3)
    unsure = log_softmax(0.5 * np.eye(3)[labels] + GENERATOR.normal(size=(300, 3)))
    models = [ModelPredictions.of(each, labels) for each in (sure, unsure)]
    found = compare_models(labels, *models)
    assert {interval.reading for interval in found.intervals.values()} == {"lower"}
    assert found.mcnemar.p < 0.01 and found.mcnemar.first_only > found.mcnemar.second_only
