"""Compute one teacher's outputs for every view and for the plain images."""

from __future__ import annotations

import argparse
import sys

from meal.cache.build import CacheBuild
from meal.cache.parts import Shard
from meal.cache.settings import CacheSlice
from meal.core.collectives import barrier
from meal.core.device import open_device
from meal.core.files import read_sealed
from meal.core.paths import CACHES, CHECKPOINTS, CONFIG, TEACHERS
from meal.core.runtime import load_runtime
from meal.core.settings import load_slice
from meal.core.stage import run_stage, teacher_argument
from meal.core.work import WorkFolder
from meal.data.prepared import open_data

PART = "--part"


def main() -> None:
    """Build the cache of the named teacher, or one part of it."""
    name, part = _arguments()
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
    device = open_device(runtime)
    work = WorkFolder(CHECKPOINTS, f"cache@{name}", identity, part.name if part else None)
    build = CacheBuild(config, data, teacher, work, device, part)
    build.compute()
    if part is not None:
        print(f"part {part} of the cache is done; once all parts are: dvc repro cache@{name}")
        return
    barrier()  # until all ranks have computed their shares
    build.finish(CACHES / name)
    work.remove()


def _arguments() -> tuple[str, Shard | None]:
    """The teacher, and the part of its cache to compute; None for all of it."""
    parser = argparse.ArgumentParser(
        "python -m stages.cache NAME", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        PART,
        metavar="I/N",
        help="compute only part I of N, for processes that share the project's folder; once all "
        "parts are done, dvc repro joins them",
    )
    options, others = parser.parse_known_args()
    return teacher_argument(others), None if options.part is None else Shard.parse(options.part)


if __name__ == "__main__":
    run_stage(main, ranked=not any(argument.startswith(PART) for argument in sys.argv))
