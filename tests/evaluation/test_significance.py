from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from meal.evaluation.comparison import compare_models
from meal.evaluation.predictions import ModelPredictions
from meal.evaluation.significance import (
    NOISE,
    Interval,
    error_difference,
    mcnemar,
    seeds_difference,
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


def test_the_interval_of_a_single_run_is_that_of_bonett_and_price() -> None:
    interval = error_difference(*discordant(3, 1))
    spread, centre = (2 + 4) / 362, (4 - 2) / 362
    half = 1.96 * np.sqrt((spread - centre**2) / 362)
    assert interval.high - interval.low == pytest.approx(100 * 2 * half, rel=0.01)


def test_equal_errors_on_many_images_are_not_inferior() -> None:
    first, second = discordant(10, 10, images=50_000)
    assert verdict(error_difference(first, second), 1.0, "ensemble").startswith("not inferior")


def test_a_paired_interval_is_narrower_than_an_unpaired_one() -> None:
    paired = error_difference(FIRST, SECOND)
    errors = [100 * float((~side).mean()) for side in (FIRST, SECOND)]
    apart = unpaired_difference(errors[:1], errors[1:], 2000)
    assert apart.difference == pytest.approx(paired.difference)
    assert apart.high - apart.low > 1.5 * (paired.high - paired.low)


def test_few_discordant_images_show_nothing_over_several_seeds_either() -> None:
    first, second = discordant(4, 0)
    assert error_difference(np.stack([first] * 3), np.stack([second] * 3)).reading == (
        error_difference(first, second).reading
    )


def test_copies_of_a_seed_do_not_narrow_the_interval() -> None:
    first, second = GENERATOR.normal(size=(2, 1000))
    one = seeds_difference(first, second)
    copies = seeds_difference(np.stack([first] * 4), np.stack([second] * 4))
    assert (copies.low, copies.high) == pytest.approx((one.low, one.high), rel=1e-6)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_if_images_add_no_noise_the_interval_is_welchs(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    sides = generator.normal(size=(2, seeds)) * [[1.0], [3.0]]
    first, second = (np.repeat(side[:, None], 50, axis=1) for side in sides)
    interval = seeds_difference(first, second)
    welch = stats.ttest_ind(*sides, equal_var=False).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((welch.low, welch.high), rel=1e-3)


def simulated(
    generator: np.random.Generator, seeds: int, images: int, of_seed: float, common: float = 0.0
) -> list[np.ndarray]:
    """The correctness `(seeds, images)` of two equal models with about 5% errors.

    Images differ in difficulty, a little less so for the other model; each run has a quality of
    its own, and chance on each image. With `common`, the two models share a quality of each seed,
    as from the same labels.
    """
    difficulty: np.ndarray = generator.normal(size=images)
    if common:
        difficulty = difficulty + common * generator.normal(size=(seeds, 1))
    return [
        difficulty
        + 0.3 * generator.normal(size=images)
        + of_seed * generator.normal(size=(seeds, 1))
        + 0.7 * generator.normal(size=(seeds, images))
        < 2.2
        for _ in range(2)
    ]


@pytest.mark.parametrize("of_seed", [0.03, 0.08])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_over_seeds_have_their_nominal_coverage(seeds: int, of_seed: float) -> None:
    """93 to 97% of the intervals hold the true difference, which is 0 (the simulation adds 1.5)."""
    generator = np.random.default_rng(1)
    found = [
        error_difference(*simulated(generator, seeds, 900, of_seed)).reading for _ in range(600)
    ]
    assert 0.93 - 0.015 <= found.count(NOISE) / 600 <= 0.97 + 0.015


@pytest.mark.parametrize("of_seed", [0.03, 0.08])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_paired_intervals_have_their_nominal_coverage_and_are_narrower(
    seeds: int, of_seed: float
) -> None:
    generator = np.random.default_rng(4)
    sides = [simulated(generator, seeds, 900, of_seed, 3 * of_seed) for _ in range(600)]
    paired = [error_difference(*pair, paired=True) for pair in sides]
    apart = [error_difference(*pair) for pair in sides]
    held = [interval.reading for interval in paired].count(NOISE) / 600
    assert 0.93 - 0.015 <= held <= 0.99
    widths = [np.median([each.high - each.low for each in found]) for found in (paired, apart)]
    assert widths[0] < widths[1]
    assert [each.difference for each in paired] == pytest.approx([e.difference for e in apart])


def test_a_single_test_image_shows_nothing() -> None:
    right, wrong = np.array([True]), np.array([False])
    for first, second in ((right, wrong), (np.stack([right] * 2), np.stack([wrong] * 2))):
        found = error_difference(first, second)
        assert found.difference == -100 and found.reading == NOISE
    assert seeds_difference(right * 1.0, right * 1.0) == Interval(0, 0, 0)


def test_intervals_of_single_runs_have_their_nominal_coverage() -> None:
    """For other images of the same kind: a single run says nothing about other seeds."""
    generator = np.random.default_rng(2)
    found = [error_difference(*simulated(generator, 1, 900, 0.0)).reading for _ in range(600)]
    found += [error_difference(*simulated(generator, 1, 360, 0.0)).reading for _ in range(600)]
    assert 0.93 <= found.count(NOISE) / 1200 <= 0.97


def test_unpaired_rates_by_hand() -> None:
    rate = (360 * 0.05 + 1) / 362
    same = unpaired_difference([5.0], [5.0], 360)
    assert same.high == pytest.approx(196 * np.sqrt(2 * rate * (1 - rate) / 362), rel=0.01)
    assert unpaired_difference([0.0], [0.0], 360).high > 0.5  # no errors, but still uncertain
    apart = unpaired_difference([5.0, 3.0], [5.0, 6.0], 360)
    assert apart.difference == -1.5
    assert apart.high - apart.low > 1.2 * (same.high - same.low)  # the two seeds disagree


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
