"""What would fail once all teachers are trained, checked before the first one trains.

The later stages check the same more exactly. Their slices are read as plain JSON, as their models
belong to packages whose changes must not retrain a teacher.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from meal.core.errors import UserError
from meal.core.files import read_json
from meal.data.pools import check_pool
from meal.data.prepared import Prepared

_INDEX = 2  # bytes of a class number in a cache with top-k


def check_student(slice_: Path, data: Prepared) -> None:
    """Check that the student will find the images that its slice asks for.

    Raises:
        UserError: if there are too few images of a kind.
    """
    settings = read_json(slice_, "dvc repro configure")["distill"]
    check_pool(data, settings["pool"], settings["labelled_share"], settings["batch_size"])


def check_disk(slices: Path, outputs: Path, data: Prepared) -> None:
    """Check that all caches that are not yet built will fit on the disk.

    Args:
        slices: the folder of the slices of the stage `cache`, one per teacher.
        outputs: the folder of the finished caches.
        data: the prepared data.

    Raises:
        UserError: with the size of the caches and the free space.
    """
    settings = [
        read_json(path, "dvc repro configure")
        for path in sorted(slices.glob("*.json"))
        if not (outputs / path.stem).exists()
    ]
    images, needed = data.count("train"), 0
    for each in settings:
        needed += images * each["view_count"] * _logit_bytes(each["cache"], data.classes)
    free = shutil.disk_usage(slices).free
    if needed > free:
        views = settings[0]["view_count"]
        raise UserError(
            f"views.count={views}: {len(settings)} caches of {views} views of {images} images need "
            f"at least {needed / 2**30:.1f} GiB, but the disk has {free / 2**30:.1f} GiB free; "
            "lower views.count or set cache.top_k"
        )


def _logit_bytes(cache: dict[str, Any], classes: int) -> int:
    """The bytes of the logits of an image in one view."""
    if not cache["enabled"]:
        return 0
    size = np.dtype(cache["dtype"]).itemsize
    top_k = cache["top_k"]
    return int(top_k * (size + _INDEX) if top_k else classes * size)
