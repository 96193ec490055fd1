"""Stratified splits: all parts have the same class proportions, as nearly as possible."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from meal.core.errors import UserError
from meal.datasets.raw import UNLABELLED
from meal.datasets.settings import Data

LOGGER = logging.getLogger(__name__)

Rows = NDArray[np.int64]

_FEWEST = 2  # images of a class, one for each side of a split


@dataclass(frozen=True)
class SplitRows:
    """The images of each split, in ascending order, and all labels, with hidden ones removed.

    Attributes:
        rows: of `train`, with its unlabelled images, of `validation` and of `test`.
        labels: of all images `(N,)`; -1 for those without.
    """

    rows: Mapping[str, Rows]
    labels: Rows


def split_images(
    given: Mapping[str, Rows],
    unlabelled: Rows,
    labels: Rows,
    data: Data,
    test_fraction: float,
    classes: Sequence[str],
) -> SplitRows:
    """Split off what the dataset does not define, and choose the images that keep their labels.

    Args:
        given: the images of the splits that the dataset defines; `train` is always there.
        unlabelled: further training images, which have no labels.
        labels: of all images `(N,)`.
        data: fractions, seeds and the number of labels.
        test_fraction: of the images, if there is no test split.
        classes: names by number.

    Raises:
        UserError: if a class has too few images, or there are not as many labels.
    """
    rows, labels = dict(given), labels.copy()
    if "test" not in rows:
        # `data.split_seed` must not change the test images.
        own = labels[rows["train"]]
        parts = split_by_class(own, "test_fraction", test_fraction, data.test_seed, classes)
        rows["train"], rows["test"] = (rows["train"][part] for part in parts)
    own = labels[rows["train"]]
    fewest = _FEWEST if "validation" not in rows else 1
    kept = choose_labelled(own, data.labelled, data.split_seed, classes, fewest)
    labelled = rows["train"][kept]
    hidden = np.setdiff1d(rows["train"], labelled)
    if "validation" not in rows:
        fraction, seed = data.validation_fraction, data.split_seed
        what = (
            "training images"
            if data.labelled == "all"
            else f"labels (data.labelled={data.labelled})"
        )
        parts = split_by_class(
            labels[labelled], "validation_fraction", fraction, seed, classes, what
        )
        labelled, rows["validation"] = (labelled[part] for part in parts)
    rows["train"] = np.sort(np.concatenate([labelled, hidden, unlabelled]))
    labels[hidden] = UNLABELLED
    return SplitRows(rows, labels)


def choose_labelled(
    labels: Rows,
    wanted: float | Literal["all"],
    seed: int,
    classes: Sequence[str],
    fewest: int = _FEWEST,
) -> Rows:
    """Indices of the training images that keep their labels, in ascending order.

    They are stratified by class, and nested: more labels with the same seed include fewer.

    Args:
        labels: of the training images, `(N,)`.
        wanted: all, a number, or a fraction below 1.
        seed: decides which images they are.
        classes: names by number.
        fewest: labels of a class.

    Raises:
        UserError: if there are not as many images, or too few labels for a class.
    """
    if wanted == "all":
        return np.arange(len(labels))
    count = round(wanted * len(labels)) if wanted < 1 else int(wanted)
    if count > len(labels):
        raise UserError(
            f"data.labelled={wanted}: there are only {len(labels)} training images; allowed: up to "
            f"{len(labels)}, or all"
        )
    # Each image's place in the random order of its class, as a fraction: taking the lowest ones
    # takes the same share of every class.
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels, minlength=len(classes))
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = np.empty(len(labels))
    places[by_class] = (np.arange(len(labels)) - starts + 0.5) / np.repeat(sizes, sizes)
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels))  # breaks ties
    queue = np.lexsort((ranks, places))
    _check_labels_per_class(labels[queue], wanted, count, classes, fewest)
    return np.sort(queue[:count])


def _check_labels_per_class(
    queue: Rows, wanted: object, count: int, classes: Sequence[str], fewest: int
) -> None:
    """Raise UserError unless the first `count` labels of a queue include `fewest` of each class."""
    sizes, found = (np.bincount(part, minlength=len(classes)) for part in (queue, queue[:count]))
    few = np.flatnonzero((sizes > 0) & (found < fewest)).tolist()
    if not few:
        return
    purpose = ", one to train on and one for validation" if fewest > 1 else ""
    scarce = [classes[k] for k in few if sizes[k] < fewest]
    enough = 1 + max(int(np.flatnonzero(queue == k)[:fewest][-1]) for k in few)
    fix = f"add images of {', '.join(scarce)}" if scarce else f"allowed: from {enough}, or all"
    raise UserError(
        f"data.labelled={wanted}: {count} labels leave class(es) "
        f"{', '.join(classes[k] for k in few)} with fewer than {fewest}{purpose}; {fix}"
    )


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
    labels: Rows,
    key: str,
    fraction: float,
    seed: int,
    classes: Sequence[str],
    what: str = "training images",
) -> tuple[Rows, Rows]:
    """Indices of the images that stay and of those taken, stratified by class, in ascending order.

    Args:
        labels: of the images, `(N,)`.
        key: the key of the fraction below `data`, for messages.
        fraction: of the images to take.
        seed: decides which images are taken.
        classes: names by number.
        what: is split, for messages.

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
            f"data.{key}={fraction}: {taken} of {len(labels)} {what}: a split with "
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
