"""Let one teacher answer every view and the plain images, once and for all."""

from __future__ import annotations

import os

from meal.config.loading import load_slice
from meal.config.slices import CacheSlice
from meal.device import select_device
from meal.files import sha256
from meal.teaching.build import Shard, build_cache, parse_shard
from meal.work import WorkFolder
from stages.common import (
    CACHES,
    CHECKPOINTS,
    CONFIG,
    TEACHERS,
    name_argument,
    run_stage,
    runtime,
)
from stages.data import open_data


def main() -> None:
    """Build the cache of the named teacher."""
    name = name_argument()
    config = load_slice(CacheSlice, CONFIG / "caches" / f"{name}.json")
    data, teacher = open_data(), TEACHERS / name
    identity = {
        "config": config.model_dump(mode="json"),
        "data": data.fingerprint,
        "network": sha256(teacher / "network.json"),  # it holds the checksum of the weights
    }
    shard = _shard()
    part = None if shard is None else "{}-of-{}".format(*shard)
    work, device = (
        WorkFolder(CHECKPOINTS, f"cache@{name}", identity, part),
        select_device(runtime()),
    )
    if build_cache(config, data, teacher, CACHES / name, work, device, shard):
        work.remove()
    else:
        print(f"part {part} of the cache is done; when all are: dvc repro cache@{name}")


def _shard() -> Shard | None:
    """Which part of the work `MEAL_SHARD` leaves to this process; None is all of it."""
    text = os.environ.get("MEAL_SHARD")
    if text and os.environ.get("DVC_STAGE"):
        raise ValueError(
            f"MEAL_SHARD={text!r}: DVC wants the whole cache; build parts with `python -m "
            "stages.cache NAME`, then run dvc repro without MEAL_SHARD"
        )
    return parse_shard(text) if text else None


if __name__ == "__main__":
    run_stage(main)
