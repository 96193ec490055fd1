"""Metrics of a classifier, from log-probabilities `(N, C)` and labels `(N,)`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]


_ROWS = 8192  # images at a time, to bound the memory of temporaries


def row_slices(count: int) -> Iterator[slice]:
    """Slices that cover `count` rows, a few thousand at a time."""
    for start in range(0, count, _ROWS):
        yield slice(start, start + _ROWS)


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities `(N, C)` of logits `(N, C)`, in float64."""
    found = np.empty(logits.shape, np.float64)
    for rows in row_slices(len(logits)):
        values = logits[rows].astype(np.float64)
        values -= values.max(axis=1, keepdims=True)
        found[rows] = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    return found


def top1_error(log_probabilities: Floats, labels: Labels) -> float:
    """The fraction of wrong predictions, in percent."""
    return 100.0 * float((log_probabilities.argmax(axis=1) != labels).mean())


def negative_log_likelihood(log_probabilities: Floats, labels: Labels) -> float:
    """The mean of `-log p(label)`, in nats."""
    return -float(log_probabilities[np.arange(len(labels)), labels].mean())


BINS = 15  # of equal width in confidence (Guo et al., ICML 2017)


def calibration_bins(
    confidence: Floats, correct: NDArray[np.bool_], bins: int = BINS
) -> dict[str, NDArray[Any]]:
    """Bin predictions by confidence: `images`, mean `confidence` and `accuracy` of each bin.

    Bins have equal width and include their upper end; empty bins hold zeros.

    Args:
        confidence: the probability `(N,)` of each prediction.
        correct: whether it is correct `(N,)`.
        bins: the number of bins.
    """
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    images = np.bincount(bin_of, minlength=bins)
    sums = (np.bincount(bin_of, weights=each, minlength=bins) for each in (confidence, correct))
    means = (total / np.maximum(images, 1) for total in sums)
    return {"images": images, **dict(zip(("confidence", "accuracy"), means, strict=True))}


def expected_calibration_error(log_probabilities: Floats, labels: Labels) -> float:
    """The mean gap between confidence and accuracy over bins of equal width, in percent.

    Naeini et al., AAAI 2015; 15 bins as in Guo et al., ICML 2017.
    """
    confidence = np.exp(log_probabilities.max(axis=1))
    return calibration_error(confidence, log_probabilities.argmax(axis=1) == labels)


def calibration_error(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    """The same, from predictions' confidence `(N,)` and whether each is correct `(N,)`."""
    found = calibration_bins(confidence, correct)
    gaps = np.abs(found["accuracy"] - found["confidence"])
    return 100.0 * float((gaps * found["images"]).sum() / len(correct))


def summary(log_probabilities: Floats, labels: Labels) -> dict[str, float]:
    """Error, NLL and calibration error, rounded for comparison."""
    return {
        "top1_error": round(top1_error(log_probabilities, labels), 2),
        "nll": round(negative_log_likelihood(log_probabilities, labels), 4),
        "ece": round(expected_calibration_error(log_probabilities, labels), 2),
    }
