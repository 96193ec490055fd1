"""Whether a difference between two models exceeds the noise of the test images and the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meal.metrics import Floats

CONFIDENCE = 0.95
NOISE = "inside the noise"
RESAMPLES = 5_000
MARGIN = 0.15  # points by which the error of a non-inferior student may exceed the rival's
_ENTRIES = 2**24  # drawn at once, to bound memory


@dataclass(frozen=True)
class Interval:
    """A mean difference and the ends of its 95% interval."""

    difference: float
    low: float
    high: float

    @property
    def reading(self) -> str:
        """What the interval says about a metric that is better when lower."""
        if self.low <= 0 <= self.high:
            return NOISE
        return "lower" if self.high < 0 else "higher"


@dataclass(frozen=True)
class McNemar:
    """The number of images that only one of two models predicts correctly, and a test on it.

    Attributes:
        first_only, second_only: the images that only the first, or only the second, predicts
            correctly.
        p: of the exact test (McNemar, 1947) that the two numbers differ only by chance.
    """

    first_only: int
    second_only: int
    p: float

    @property
    def shown(self) -> str:
        """The p-value as text."""
        return f"{self.p:.3f}" if self.p >= 0.001 else "< 0.001"


def paired_bootstrap(differences: Floats, seed: int = 0) -> Interval:
    """The mean of paired differences `(N,)` with its percentile interval (Efron, 1979).

    Args:
        differences: of two models, image by image.
        seed: for the resampling.
    """
    values = np.asarray(differences, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    at_once = max(1, _ENTRIES // len(values))
    for start in range(0, RESAMPLES, at_once):
        count = min(at_once, RESAMPLES - start)
        drawn = generator.integers(len(values), size=(count, len(values)))
        means[start : start + count] = values[drawn].mean(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(values.mean()), float(low), float(high))


def seeds_difference(
    first: Floats, second: Floats, extra: float = 0.0, *, paired: bool = False
) -> Interval:
    """The mean of the first runs minus that of the second, with its interval over images and seeds.

    The runs of the two sides share the images, and their seeds count as independent: the variance
    is the sum of that of the images and, as in Welch's test (1947), that of the seeds of each side.
    What a seed changes on single images is in both, so it is subtracted once. The degrees of
    freedom follow Satterthwaite (1946), so that few seeds widen the interval as Student's t does;
    the variance of seeds enters them as the geometric mean of its value before and after that
    subtraction, which comes closest to 95% coverage.

    Args:
        first: a value for each run and image, `(S, N)`.
        second: the same for the other side, on the same images; `S` may differ.
        extra: a variance to add, for values that are seldom different from zero.
        paired: whether the runs are in the order of seeds that both sides share, so that what a
            seed does to both counts for nothing: the labels and the teachers that it draws.
    """
    sides = [np.atleast_2d(np.asarray(side, dtype=np.float64)) for side in (first, second)]
    if paired:
        sides = [sides[0] - sides[1], np.zeros((1, sides[0].shape[1]))]
    of_images = sides[0].mean(axis=0) - sides[1].mean(axis=0)
    images = len(of_images)
    degrees = max(1, images - 1)
    variance = float(of_images.var()) / degrees + extra
    uncertain = variance**2 / degrees
    for side in sides:
        seeds, of_seeds = len(side), side.mean(axis=1, keepdims=True)
        if seeds > 1:
            whole = float(of_seeds.var(ddof=1)) / seeds
            rest = side - side.mean(axis=0) - of_seeds + of_seeds.mean()
            on_images = float((rest**2).sum()) / ((seeds - 1) * degrees * images * seeds)
            own = max(0.0, whole - on_images)
            variance += own
            uncertain += own * whole / (seeds - 1)
    half, difference = _half_width(variance, uncertain), float(of_images.mean())
    return Interval(difference, difference - half, difference + half)


def error_difference(
    first: NDArray[np.bool_], second: NDArray[np.bool_], *, paired: bool = False
) -> Interval:
    """The first model's error minus the second's, in points, with its interval.

    For a single run of each, the interval is close to that of Bonett and Price (2012): it counts
    one more image that only the first, and one more that only the second predicts correctly,
    because a few such images show less than their number suggests.

    Args:
        first: whether the first model's predictions are correct, `(N,)`, or `(S, N)` for several
            seeds.
        second: the same for the second, on the same images.
        paired: as in `seeds_difference`.
    """
    images = first.shape[-1]
    wrong = [100.0 * (~side).astype(np.float64) for side in (first, second)]
    extra = 2 * (100.0 / (images + 2)) ** 2
    return seeds_difference(wrong[0], wrong[1], extra, paired=paired)


def error_interval(correct: NDArray[np.bool_]) -> Interval:
    """The error of one model, in percent, with its interval (Wilson, 1927).

    Args:
        correct: whether each prediction is correct, `(N,)`.
    """
    return rate_interval(int((~correct).sum()), len(correct))


def rate_interval(wrong: int, images: int) -> Interval:
    """An error in percent with its interval (Wilson, 1927), from the number of wrong answers."""
    from scipy.stats import binomtest

    found = binomtest(wrong, images).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(100 * wrong / images, 100 * float(found.low), 100 * float(found.high))


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Compare two models by the images that only one predicts correctly, `(N,)` each."""
    from scipy.stats import binomtest

    first_only, second_only = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = first_only + second_only
    p = float(binomtest(first_only, discordant).pvalue) if discordant else 1.0
    return McNemar(first_only, second_only, p)


def unpaired_difference(first: Sequence[float], second: Sequence[float], images: int) -> Interval:
    """The first errors minus the second, in points, for when predictions are not available.

    The interval is that of two independent proportions (Agresti and Caffo, 2000); for several runs,
    the variance of each side's mean is added (Welch, 1947). It is wider than necessary: without
    predictions, nobody can tell what seeds change on single images.

    Args:
        first: the error of each run, in percent.
        second: the errors of the runs that they are compared with.
        images: the number of test images.
    """
    rates = [(np.mean(errors) / 100 * images + 1) / (images + 2) for errors in (first, second)]
    variance = float(sum(1e4 * rate * (1 - rate) / (images + 2) for rate in rates))
    uncertain = variance**2 / images
    for errors in (first, second):
        if len(errors) > 1:
            own = float(np.var(errors, ddof=1)) / len(errors)
            variance += own
            uncertain += own**2 / (len(errors) - 1)
    centre, half = 100 * (rates[0] - rates[1]), _half_width(variance, uncertain)
    difference = float(np.mean(first) - np.mean(second))
    low, high = float(centre - half), float(centre + half)
    return Interval(difference, min(low, difference), max(high, difference))


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of a few values with Student's interval, whose ends are NaN below two values."""
    from scipy.stats import ttest_1samp

    if len(values) < 2:
        return Interval(values[0] if values else float("nan"), float("nan"), float("nan"))
    mean = float(np.mean(values))
    if np.ptp(values) == 0:  # no spread: SciPy warns of lost precision
        return Interval(mean, mean, mean)
    found = ttest_1samp(values, 0).confidence_interval(CONFIDENCE)
    return Interval(mean, float(found.low), float(found.high))


def _half_width(variance: float, uncertain: float) -> float:
    """Half the width of a 95% interval of Student's t.

    Args:
        variance: of the estimate: a sum over its sources.
        uncertain: the sum of their squared variances, each over its degrees of freedom.
    """
    from scipy.stats import t

    if not variance:
        return 0.0
    return float(t.ppf((1 + CONFIDENCE) / 2, variance**2 / uncertain)) * variance**0.5


def verdict(interval: Interval, p: float, rival: str) -> str:
    """What can be claimed about the student against a rival: non-inferiority, then superiority.

    Args:
        interval: of the student's error minus the rival's.
        p: of McNemar's test, which any claim of superiority or inferiority needs.
        rival: the rival's name.
    """
    significant = p < 1 - CONFIDENCE
    if interval.high < 0 and significant:
        return f"better than the {rival}"
    if interval.high <= MARGIN:
        return f"not inferior to the {rival} (margin {MARGIN} points)"
    if interval.low > 0 and significant:
        return f"worse than the {rival}"
    return f"no difference from the {rival} is shown: it is {NOISE}"
