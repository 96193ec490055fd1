"""Compute one teacher's outputs for every view and for the plain images."""

from __future__ import annotations

import os

from meal.cache.build import CacheBuild
from meal.cache.parts import Shard
from meal.cache.settings import CacheSlice
from meal.core.device import select_device, set_determinism
from meal.core.errors import UserError
from meal.core.files import read_sealed
from meal.core.paths import CACHES, CHECKPOINTS, CONFIG, TEACHERS
from meal.core.runtime import load_runtime
from meal.core.settings import load_slice
from meal.core.stage import run_stage, teacher_argument
from meal.core.work import WorkFolder
from meal.data.prepared import open_data


def main() -> None:
    """Build the cache of the named teacher, or one process's share of it."""
    name = teacher_argument()
    config = load_slice(CacheSlice, CONFIG / "caches" / f"{name}.json")
    data, teacher, runtime = open_data(), TEACHERS / name, load_runtime()
    fix = f"dvc repro teacher@{name}"
    identity = {
        "config": config.model_dump(mode="json"),
        "data": data.fingerprint,
        "network": read_sealed(teacher / "network.json", fix)[
            "fingerprint"
        ],  # which holds the checksum of the weights
    }
    shard = _shard()
    part = None if shard is None else f"{shard.which}-of-{shard.number}"
    work = WorkFolder(CHECKPOINTS, f"cache@{name}", identity, part)
    device = select_device(runtime.device)
    set_determinism(runtime.deterministic)
    build = CacheBuild(config, data, teacher, work, device, shard)
    build.compute()
    if shard is None:
        build.finish(CACHES / name)
        work.remove()
    else:
        print(f"part {part} of the cache is done; once all parts are: dvc repro cache@{name}")


def _shard() -> Shard | None:
    """This process's share of the work, from `MEAL_SHARD`; None for all of it."""
    text = os.environ.get("MEAL_SHARD")
    if text and os.environ.get("DVC_STAGE"):
        raise UserError(
            f"MEAL_SHARD={text!r}: DVC needs the whole cache; build parts with `python -m "
            "stages.cache NAME`, then run dvc repro without MEAL_SHARD"
        )
    return Shard.parse(text) if text else None


if __name__ == "__main__":
    run_stage(main)
