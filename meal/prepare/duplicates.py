"""Images that occur in two splits: training images must not be scored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

NO_LABELS = "unlabelled"  # the images of `train` without labels
PAIRS = (("test", "train"), ("test", NO_LABELS), ("test", "validation"), ("validation", "train"))


def digest(content: bytes | memoryview) -> NDArray[np.uint8]:
    """The SHA-256 `(32,)` of a file, or of an image's pixels."""
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)


def pixel_digests(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The SHA-256s `(N, 32)` of images `(N, ...)`."""
    digests = np.empty((len(images), 32), np.uint8)
    for row, image in enumerate(images):  # only in `prepare`, and microseconds each
        digests[row] = digest(image.tobytes())
    return digests


def count_duplicates(
    digests: NDArray[np.uint8], rows: Mapping[str, NDArray[np.int64]]
) -> dict[str, int]:
    """How many images of one split also occur in another, by `ONE_in_OTHER`.

    `train` includes the unlabelled images, which are counted again on their own.
    """
    keys = digests.reshape(len(digests), -1).view("S32")[:, 0]
    return {
        f"{one}_in_{other}": int(np.isin(keys[rows[one]], keys[rows[other]]).sum())
        for one, other in PAIRS
        if other in rows
    }
