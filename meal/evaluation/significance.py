"""Is a difference between two models more than the noise of the test images, and of the seeds?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meal.metrics import Floats

CONFIDENCE = 0.95
NOISE = "inside the noise"
_NORMAL = 1.96  # deviations on either side that hold 95%
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
            return NOISE
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
            seeds, and then seeds and images are both resampled, and the seeds' spread is that of
            Student's t, as few of them show too little of it.
        seed: decides the resamples.
    """
    table = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    seeds, images = table.shape
    difference = float(table.mean())
    least = 0.0  # half the width that the seeds alone ask for
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
    """The first model's error less the second's, in points, with its bootstrap interval.

    The interval is at least that of Bonett and Price (2012), which stays wide where few images tell
    two models apart: the bootstrap's shrinks to nothing there. Of seeds, their mean counts.

    Args:
        first: whether its answers are right, `(N,)` or `(S, N)`.
        second: the same of the other, on the same images and seeds.
    """
    found = paired_bootstrap(100.0 * (second.astype(np.float64) - first.astype(np.float64)))
    count = first.shape[-1] + 2
    alone, other = (
        (sides.sum(axis=-1).mean() + 1) / count for sides in (first & ~second, second & ~first)
    )
    centre = float(other - alone)
    half = _NORMAL * float(np.sqrt((alone + other - centre**2) / count))
    low, high = 100 * (centre - half), 100 * (centre + half)
    return Interval(found.difference, min(found.low, low), max(found.high, high))


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> McNemar:
    """Compare two single models by the images that one of them alone gets right, `(N,)` each."""
    from scipy.stats import binomtest

    alone, other = int((first & ~second).sum()), int((second & ~first).sum())
    p = float(binomtest(alone, alone + other).pvalue) if alone + other else 1.0
    return McNemar(alone, other, p)


def unpaired_difference(first: Sequence[float], second: Sequence[float], images: int) -> Interval:
    """The first errors less the second, in points, where single answers are not at hand.

    The interval of two independent proportions (Agresti and Caffo, 2000), and of several pairs of
    runs Student's t of their differences on top.

    Args:
        first: the error of each run, in percent.
        second: the same of the runs that they are compared with, pair by pair.
        images: how many test images there are.
    """
    differences = np.subtract(first, second)
    shares = [(np.mean(errors) / 100 * images + 1) / (images + 2) for errors in (first, second)]
    variance = sum(share * (1 - share) / (images + 2) for share in shares)
    seeds = len(differences)
    if seeds > 1:
        variance += (_t_over_normal(seeds) / 100) ** 2 * differences.var(ddof=1) / seeds
    centre, half = 100 * (shares[0] - shares[1]), 100 * _NORMAL * float(np.sqrt(variance))
    difference = float(differences.mean())
    low, high = float(centre - half), float(centre + half)
    return Interval(difference, min(low, difference), max(high, difference))


def _t_over_normal(count: int) -> float:
    """How much wider Student's t makes a 95% interval of the mean of `count` numbers."""
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) / _NORMAL


def verdict(interval: Interval, p: float, rival: str) -> str:
    """What may be claimed of the student against a rival: not inferior first, then better.

    Args:
        interval: of the student's error less the rival's.
        p: of McNemar's test: what it does not find is not claimed.
        rival: its name.
    """
    shown = p < 1 - CONFIDENCE
    if interval.high < 0 and shown:
        return f"better than the {rival}"
    if interval.high <= MARGIN:
        return f"not inferior to the {rival} (margin {MARGIN} points)"
    if interval.low > 0 and shown:
        return f"worse than the {rival}"
    return f"no difference to the {rival} is shown: it is {NOISE}"
