"""Let one teacher answer every view and the plain images, once and for all."""

from __future__ import annotations

from meal.config.loading import load_slice
from meal.config.slices import CacheSlice
from meal.data.prepared import open_prepared
from meal.device import select_device
from meal.files import sha256
from meal.teaching.build import build_cache
from meal.work import WorkFolder
from stages.common import (
    CACHES,
    CHECKPOINTS,
    CONFIG,
    DATA,
    TEACHERS,
    name_argument,
    run_stage,
    runtime,
)


def main() -> None:
    """Build the cache of the named teacher."""
    name = name_argument()
    config = load_slice(CacheSlice, CONFIG / "caches" / f"{name}.json")
    data, teacher = open_prepared(DATA), TEACHERS / name
    identity = {
        "config": config.model_dump(mode="json"),
        "data": data.fingerprint,
        "network": sha256(teacher / "network.json"),  # it holds the checksum of the weights
    }
    work = WorkFolder(CHECKPOINTS, f"cache@{name}", identity)
    build_cache(config, data, teacher, CACHES / name, work, select_device(runtime()))
    work.remove()


if __name__ == "__main__":
    run_stage(main)
