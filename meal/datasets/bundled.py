"""Datasets that come with an installed package."""

from __future__ import annotations

from pathlib import Path

from meal.datasets.raw import RawImages


def digits(root: Path | None) -> RawImages:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels; 360 of them are the test set."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    # Scale grey levels from 0..16 to 0..255.
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    # The library defines no test set. This split is fixed: `data.split_seed` must not change it.
    train, test = train_test_split(
        np.arange(len(images)), test_size=360, stratify=bunch.target, random_state=0
    )
    labels = bunch.target.astype(np.int64)
    classes = tuple(str(name) for name in bunch.target_names)
    return RawImages(images[train], labels[train], images[test], labels[test], classes)
