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
_NORMAL = 1.96  # half the width of a 95% interval, in standard errors
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
    """The mean of paired differences with its percentile interval (Efron, 1979).

    Args:
        differences: of two models, image by image, `(N,)`; or `(S, N)` for pairs of runs with `S`
            seeds. Then both seeds and images are resampled, and the spread over seeds is widened
            to that of Student's t, because few seeds underestimate it.
        seed: for the resampling.
    """
    table = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    seeds, images = table.shape
    difference = float(table.mean())
    least = 0.0  # half the width that the spread over seeds requires
    if seeds > 1:
        apart = table.mean(axis=1, keepdims=True) - difference
        wider = _t_over_normal(seeds)
        least = wider * _NORMAL * float(apart.std(ddof=1)) / seeds**0.5
        table = table + (wider * np.sqrt(seeds / (seeds - 1)) - 1) * apart
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    at_once = max(1, _ENTRIES // (seeds * images))
    for start in range(0, RESAMPLES, at_once):
        count = min(at_once, RESAMPLES - start)
        columns = generator.integers(images, size=(count, images))
        rows = generator.integers(seeds, size=(count, seeds))
        of_seeds = table[:, columns].mean(axis=2)  # (seeds, count)
        means[start : start + count] = np.take_along_axis(of_seeds.T, rows, axis=1).mean(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(
        difference, min(float(low), difference - least), max(float(high), difference + least)
    )


def error_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Interval:
    """The first model's error minus the second's, in points, with its interval.

    The interval spans the bootstrap's and that of Bonett and Price (2012): if few images
    distinguish the models, the bootstrap's alone is too narrow. With several seeds, it uses the
    average number of discordant images.

    Args:
        first: whether the first model's predictions are correct, `(N,)` or `(S, N)`.
        second: the same for the second, on the same images and seeds.
    """
    found = paired_bootstrap(100.0 * (second.astype(np.float64) - first.astype(np.float64)))
    count = first.shape[-1] + 2
    first_only, second_only = (
        (discordant.sum(axis=-1).mean() + 1) / count
        for discordant in (first & ~second, second & ~first)
    )
    centre = float(second_only - first_only)
    half = _NORMAL * float(np.sqrt((first_only + second_only - centre**2) / count))
    low, high = 100 * (centre - half), 100 * (centre + half)
    return Interval(found.difference, min(found.low, low), max(found.high, high))


def error_interval(correct: NDArray[np.bool_]) -> Interval:
    """The error of one model, in percent, with its interval (Wilson, 1927).

    Args:
        correct: whether each prediction is correct, `(N,)`.
    """
    from scipy.stats import binomtest

    wrong, images = int((~correct).sum()), len(correct)
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

    The interval is that of two independent proportions (Agresti and Caffo, 2000); for several pairs
    of runs, the spread of their differences is added, widened to Student's t.

    Args:
        first: the error of each run, in percent.
        second: the errors of the runs that they are compared with, pair by pair.
        images: the number of test images.
    """
    differences = np.subtract(first, second)
    rates = [(np.mean(errors) / 100 * images + 1) / (images + 2) for errors in (first, second)]
    variance = sum(rate * (1 - rate) / (images + 2) for rate in rates)
    seeds = len(differences)
    if seeds > 1:
        variance += (_t_over_normal(seeds) / 100) ** 2 * differences.var(ddof=1) / seeds
    centre, half = 100 * (rates[0] - rates[1]), 100 * _NORMAL * float(np.sqrt(variance))
    difference = float(differences.mean())
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


def _t_over_normal(count: int) -> float:
    """The factor by which Student's t widens the 95% interval of a mean of `count` values."""
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) / _NORMAL


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
