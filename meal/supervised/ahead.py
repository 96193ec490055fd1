"""What would fail once all teachers are trained, checked before the first one trains.

The later stages check the same more exactly. Their slices are read as plain JSON, as their models
belong to packages whose changes must not retrain a teacher.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from meal.core import ranks
from meal.core.errors import UserError
from meal.core.files import read_json
from meal.core.seeds import Purpose
from meal.data.pools import check_pool
from meal.data.prepared import Prepared
from meal.models.blocks import ALIGNED
from meal.models.factory import build
from meal.models.foreign import load_foreign, load_weights
from meal.models.heads import Frozen, freeze
from meal.models.memory import check_memory
from meal.models.settings import NetworkSlice, WeightsFile
from meal.models.spec import specify
from meal.views.families import view_family
from meal.views.pipelines import check_padding
from meal.views.settings import ViewsSlice

_FIX = "dvc repro configure"
_DECIDING = ("view_count", "dtype", "top_k", "enabled", "align", "block_count")  # of a cache's size


def check_all(slices: Path, data: Prepared, device: torch.device) -> None:
    """Check that student, baseline and all teachers will find what their slices name.

    Args:
        slices: the folder of all slices.
        data: the prepared data.
        device: where they will be trained.

    Raises:
        UserError: as `check_student` does, for any of them, or if a teacher's crops can miss the
            image.
    """
    check_student(slices / "distill.json", data, device)
    baseline = read_json(slices / "baseline.json", _FIX)
    _check_start(baseline, data, baseline["training"]["frozen"], Purpose.BASELINE)
    for path in sorted((slices / "teachers").glob("*.json")):
        teacher = read_json(path, _FIX)
        if teacher["training"] is not None:
            _check_padding(teacher, data, f"teaching.views or networks.{path.stem}.training.views")
            _check_start(teacher, data, teacher["training"]["frozen"], Purpose.TEACHER)


def check_student(slice_: Path, data: Prepared, device: torch.device) -> None:
    """Check that the student will find what its slice names: images, weights, layers; and memory.

    Raises:
        UserError: if there are too few images of a kind, crops that can miss the image, no such
            weights or layers, or too little memory.
    """
    config = read_json(slice_, _FIX)
    settings = config["distill"]
    _check_padding(config, data, "views")
    check_pool(data, settings["pool"], settings["labelled_share"], settings["batch_size"])
    spec = specify(NetworkSlice.model_validate(config["network"]), data)
    batch_size = min(settings["batch_size"], len(data.training_rows(settings["pool"])))
    check_memory(spec, device, batch_size // ranks.size(), settings["precision"])
    _check_start(config, data, settings["frozen"], None)
    if settings["init"] is not None:
        load_foreign(build(spec), WeightsFile.model_validate(settings["init"]), "distill.init")


def frozen_key(name: str, purpose: Purpose | None) -> str:
    """Where in params.yaml the frozen layers of a network are; None for the student."""
    if purpose is Purpose.TEACHER:
        return f"teaching.frozen or networks.{name}.training.frozen"
    return "distill.frozen" if purpose is None else "baseline.frozen or distill.frozen"


def _check_padding(config: Mapping[str, Any], data: Prepared, key: str) -> None:
    family = view_family(ViewsSlice.model_validate(config["views"]))
    check_padding(family, data.shape[1], key)


def _check_start(
    config: Mapping[str, Any], data: Prepared, frozen: Frozen, purpose: Purpose | None
) -> None:
    """Check that the weights of a network fit, and that there are the layers to freeze."""
    network = NetworkSlice.model_validate(config["network"])
    if network.weights is None and not frozen:
        return
    spec = specify(network, data)
    made = build(spec)
    load_weights(made, spec, network, f"networks.{config['name']}.weights")
    freeze(made, spec, frozen, frozen_key(config["name"], purpose))


def check_disk(slices: Path, outputs: Path, teachers: Path, data: Prepared) -> None:
    """Check that all caches that are not yet built, and their mean, will fit on the disk.

    Args:
        slices: the folder of the slices of the stage `cache`, one per teacher.
        outputs: the folder of the finished caches.
        teachers: the folder of the finished teachers.
        data: the prepared data.

    Raises:
        UserError: with the size of the caches and the free space.
    """
    settings = {path.stem: read_json(path, _FIX) for path in sorted(slices.glob("*.json"))}
    missing = [
        each
        for name, each in settings.items()
        if not (teachers / name).exists() or not _is_built(outputs / name, each, data)
    ]
    if not missing:
        return
    images, views = data.count("train"), missing[0]["view_count"]
    each = images * views * _bytes(missing[0]["cache"], data.classes)
    needed = (len(missing) + 1) * each  # and the mean of all
    free = shutil.disk_usage(slices).free
    if needed > free:
        raise UserError(
            f"views.count={views}: {len(missing)} caches of {views} views of {images} images, and "
            f"their mean, need about {needed / 2**30:.1f} GiB, but the disk has "
            f"{free / 2**30:.1f} GiB free; lower views.count or cache.blocks, or set cache.top_k"
        )


def _is_built(folder: Path, wanted: Mapping[str, Any], data: Prepared) -> bool:
    """Whether a cache is there, for these data and of this size."""
    try:
        manifest = read_json(folder / "manifest.json", _FIX)
    except UserError:
        return False
    settings = wanted["cache"]
    expected = {
        **settings, "view_count": wanted["view_count"], "block_count": settings["blocks"]
    }  # fmt: skip
    same = all(manifest.get(key) == expected[key] for key in _DECIDING)
    return same and manifest.get("data") == data.fingerprint


def _bytes(cache: Mapping[str, Any], classes: int) -> int:
    """The bytes of an image in one view; a network may have fewer blocks."""
    if not cache["enabled"]:
        return 0
    size, top_k = np.dtype(cache["dtype"]).itemsize, cache["top_k"]
    index = 2 if classes <= 2**16 else 4  # bytes of a class number beside its probability
    logits = top_k * (size + index) if top_k else classes * size
    blocks = cache["blocks"] * ALIGNED * size if cache["align"] == "spatial" else 0
    return int(logits + blocks)
