"""Is a difference between two models more than the noise of the test images, and of the seeds?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meal.metrics import Floats

CONFIDENCE = 0.95
RESAMPLES = 5_000
MARGIN = 0.15  # points: a student whose error exceeds the ensemble's by less is not inferior
_ENTRIES = 2**24  # drawn at once: memory stays bounded


@dataclass(frozen=True)
class Interval:
    """A mean difference and the ends of its 95% interval."""

    difference: float
    low: float
    high: float

    @property
    def reading(self) -> str:
        """What the interval says of a measure that is better when it is lower."""
        if self.low <= 0 <= self.high:
            return "inside the noise"
        return "lower" if self.high < 0 else "higher"


@dataclass(frozen=True)
class McNemar:
    """The images that one of two models alone gets right, and how odd their numbers are.

    Attributes:
        first_only, second_only: how many each alone gets right.
        p: of the exact test (McNemar, 1947): the two numbers are equal but for chance.
    """

    first_only: int
    second_only: int
    p: float


def paired_bootstrap(differences: Floats, seed: int = 0) -> Interval:
    """The mean of paired differences with its percentile interval (Efron, 1979).

    Args:
        differences: of two models, image by image: `(N,)`; or `(S, N)` for pairs of runs of `S`
            seeds, and then seeds and images are both resampled.
        seed: decides the resamples.
    """
    table = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    seeds, images = table.shape
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
    return Interval(float(table.mean()), float(low), float(high))


def error_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Interval:
    """The first model's error less the second's, in points.

    Args:
        first: whether its answers are right, `(N,)` or `(S, N)`.
        second: the same of the other, on the same images and seeds.
    """
    return paired_bootstrap(100.0 * (second.astype(np.float64) - first.astype(np.float64)))


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Compare two single models by the images that one of them alone gets right, `(N,)` each."""
    from scipy.stats import binomtest

    alone, other = int((first & ~second).sum()), int((second & ~first).sum())
    p = float(binomtest(alone, alone + other).pvalue) if alone + other else 1.0
    return McNemar(alone, other, p)


def unpaired_difference(first: float, second: float, images: int) -> Interval:
    """The first error less the second, in points, where single answers are not at hand.

    The normal interval of two independent proportions: wider than a paired one.
    """
    variance = sum(error * (100 - error) / images for error in (first, second))
    half = 1.96 * float(np.sqrt(variance))
    difference = first - second
    return Interval(difference, difference - half, difference + half)


def verdict(interval: Interval, rival: str) -> str:
    """What may be claimed of the student's error less a rival's: not inferior, then better."""
    if interval.high < 0:
        return f"better than the {rival}"
    if interval.high <= MARGIN:
        return f"not inferior to the {rival} (margin {MARGIN} points)"
    if interval.low > 0:
        return f"worse than the {rival}"
    return f"no difference to the {rival} is shown: it is inside the noise"
