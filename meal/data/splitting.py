"""Parts of the images that hold the classes in their shares, as near as can be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

_FEWEST = 2  # images of a class, one for each side of a split


def check_classes(split: str, classes: Sequence[str], listed: Rows, left: Rows) -> None:
    """Raise ValueError if broken files leave a split, or a class to train on, without images."""
    before, after = (np.bincount(labels, minlength=len(classes)) for labels in (listed, left))
    gone = np.flatnonzero((after == 0) & (before > 0)).tolist()
    empty = ", ".join(classes[k] for k in gone)
    if not len(left) or (empty and split == "train"):
        raise ValueError(f"no whole image is left of the {split} images of class(es) {empty}")
    if empty:
        print(f"warning: no whole {split} image is left of class(es) {empty}", flush=True)


def split_by_class(
    labels: Rows, key: str, fraction: float, seed: int, classes: Sequence[str]
) -> tuple[Rows, Rows]:
    """Indices of what stays and of what is taken, stratified by class, each in rising order.

    Args:
        labels: of the images, `(N,)`.
        key: the key below `data` of the fraction, for errors.
        fraction: of the images that are taken.
        seed: decides which.
        classes: names by number.

    Raises:
        ValueError: if a class is too small for it, or there are more classes than images taken.
    """
    from sklearn.model_selection import train_test_split

    images = np.bincount(labels)
    taken, fewest = math.ceil(len(labels) * fraction), np.count_nonzero(images)
    few = [classes[k] for k in np.flatnonzero((images > 0) & (images < _FEWEST)).tolist()]
    if few:
        raise ValueError(
            f"data.{key}={fraction}: class(es) {', '.join(few)} have fewer than {_FEWEST} training "
            "images, and cannot be split; give more, or a split of your own"
        )
    if not fewest <= taken <= len(labels) - fewest:
        # Rounded inwards, so that what is named is allowed.
        lowest = math.ceil(1000 * fewest / len(labels)) / 1000
        highest = math.floor(1000 * (1 - fewest / len(labels))) / 1000
        raise ValueError(
            f"data.{key}={fraction}: {taken} of {len(labels)} training images cannot be of every "
            f"one of {fewest} classes, nor the rest"
            + (f"; allowed: {lowest:.3f} to {highest:.3f}" if lowest <= highest else "")
        )
    left, chosen = train_test_split(
        np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed % 2**32
    )
    without = (images > 0) & (np.bincount(labels[chosen], minlength=len(images)) == 0)
    if without.any():
        names = ", ".join(classes[k] for k in np.flatnonzero(without).tolist())
        print(f"warning: data.{key}={fraction} takes no image of class(es) {names}", flush=True)
    return np.sort(left), np.sort(chosen)
