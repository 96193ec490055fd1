"""Statistics of the pixels, by channel, and whether unlabelled images have the same."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOGGER = logging.getLogger(__name__)

_SHIFT, _RATIO = 0.25, 1.25  # between the statistics of labelled and unlabelled images


def moments(sums: NDArray[np.int64], side: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and std of pixels from 0 to 255, by channel, from sums `(N, 2, C)` over each image.

    Integers sum exactly, in any order of the images.
    """
    mean, square = sums.sum(axis=0).astype(np.float64) / (len(sums) * side**2)
    return mean, np.sqrt(np.maximum(square - mean**2, 1e-7))


def rounded(values: NDArray[Any]) -> list[float]:
    """Pixels from 0 to 255 as fractions with six decimals."""
    return [round(float(value) / 255, 6) for value in values]


def compare(
    labelled: tuple[NDArray[Any], NDArray[Any]], unlabelled: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    """Warn if unlabelled images look different: teachers may then be wrong about them."""
    shift = float((np.abs(unlabelled[0] - labelled[0]) / labelled[1]).max())
    ratio = float((unlabelled[1] / labelled[1]).max()), float((unlabelled[1] / labelled[1]).min())
    if shift > _SHIFT or ratio[0] > _RATIO or ratio[1] < 1 / _RATIO:
        LOGGER.warning(
            "the unlabelled images differ from the labelled ones: their mean by %.2f std, their "
            "std by a factor of %.2f; see reports/dataset.json",
            shift,
            ratio[0] if ratio[0] > 1 / ratio[1] else ratio[1],
        )


def sums(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Sums `(N, 2, C)` of the values in images `(N, H, W, C)`, and of their squares."""
    found = np.empty((len(images), 2, images.shape[3]), np.int64)
    for start in range(0, len(images), 1024):  # bounds memory
        values = images[start : start + 1024].astype(np.int64)
        found[start : start + 1024] = np.stack(
            [values.sum((1, 2)), (values**2).sum((1, 2))], axis=1
        )
    return found
