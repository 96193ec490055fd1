"""Datasets that come with an installed package."""

from __future__ import annotations

from pathlib import Path

from meal.datasets.raw import RawImages


def digits(root: Path | None) -> RawImages:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, without a test set of their own."""
    import numpy as np
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Scale grey levels from 0..16 to 0..255.
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    classes = tuple(str(name) for name in bunch.target_names)
    return RawImages(images, bunch.target.astype(np.int64), None, None, classes)
