"""Stratified splits: both parts have the same class proportions, as nearly as possible."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from meal.core.errors import UserError

LOGGER = logging.getLogger(__name__)

Rows = NDArray[np.int64]

_FEWEST = 2  # images of a class, one for each side of a split


def check_classes(split: str, classes: Sequence[str], listed: Rows, left: Rows) -> None:
    """Raise UserError if broken files leave a split, or a training class, without images."""
    before, after = (np.bincount(labels, minlength=len(classes)) for labels in (listed, left))
    gone = np.flatnonzero((after == 0) & (before > 0)).tolist()
    empty = ", ".join(classes[k] for k in gone)
    if not len(left) or (empty and split == "train"):
        raise UserError(f"no intact image is left in {split} for class(es) {empty}")
    if empty:
        LOGGER.warning("no intact image is left in %s for class(es) %s", split, empty)


def split_by_class(
    labels: Rows, key: str, fraction: float, seed: int, classes: Sequence[str]
) -> tuple[Rows, Rows]:
    """Indices of the images that stay and of those taken, stratified by class, in ascending order.

    Args:
        labels: of the images, `(N,)`.
        key: the key of the fraction below `data`, for messages.
        fraction: of the images to take.
        seed: decides which images are taken.
        classes: names by number.

    Raises:
        UserError: if a class has too few images, or too few for every class are on one side.
    """
    from sklearn.model_selection import train_test_split

    images = np.bincount(labels)
    taken, fewest = math.ceil(len(labels) * fraction), np.count_nonzero(images)
    few = [classes[k] for k in np.flatnonzero((images > 0) & (images < _FEWEST)).tolist()]
    if few:
        raise UserError(
            f"data.{key}={fraction}: class(es) {', '.join(few)} have fewer than {_FEWEST} training "
            "images, so they cannot be split; add images, or provide the split as a folder"
        )
    if not fewest <= taken <= len(labels) - fewest:
        # Rounded inwards, so that the bounds in the message are themselves allowed.
        lowest = math.ceil(1000 * fewest / len(labels)) / 1000
        highest = math.floor(1000 * (1 - fewest / len(labels))) / 1000
        raise UserError(
            f"data.{key}={fraction}: {taken} of {len(labels)} training images: a split with "
            f"{fewest} classes cannot include every class on both sides"
            + (f"; allowed: {lowest:.3f} to {highest:.3f}" if lowest <= highest else "")
        )
    left, chosen = train_test_split(
        np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed % 2**32
    )
    without = (images > 0) & (np.bincount(labels[chosen], minlength=len(images)) == 0)
    if without.any():
        names = ", ".join(classes[k] for k in np.flatnonzero(without).tolist())
        LOGGER.warning("data.%s=%s takes no image of class(es) %s", key, fraction, names)
    return np.sort(left), np.sort(chosen)
