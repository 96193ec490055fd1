"""Caches and ensembles of the tiny network, for several tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from meal.cache.build import CacheBuild
from meal.cache.parts import Shard
from meal.cache.settings import CacheSlice
from meal.core.work import WorkFolder
from meal.data.prepared import Prepared
from meal.ensemble import build as ensemble_build
from meal.ensemble.settings import EnsembleSlice
from meal.metrics import Labels
from meal.models.checkpoint import save
from meal.models.factory import build
from meal.models.spec import NetworkSpec
from meal.targets.cache import Array, TargetCache
from meal.targets.ensemble import Ensemble

CPU = torch.device("cpu")
SPEC = NetworkSpec("tiny", 1.0, 1, 16, 3)
LABELS = np.arange(24) % 3  # of the validation images, on which weights are fitted
VIEWS = {"seed": 0, "crop_padding": 1, "flip": False, "size": 9}


def teacher(folder: Path, name: str, seed: int) -> Path:
    """Write the weights of a teacher."""
    network = build(SPEC, seed)
    generator = torch.Generator().manual_seed(seed)
    network(torch.randn(64, 1, 16, 16, generator=generator))  # moves BatchNorm's buffers
    save(folder / name, SPEC, network.state_dict())
    return folder / name


def cache_slice(name: str = "one", views: int = 3, **cache: Any) -> CacheSlice:
    return CacheSlice.model_validate(
        {"name": name, "views": VIEWS, "view_count": views, "cache": cache}
    )


def build_cache(
    config: CacheSlice, data: Prepared, weights: Path, folder: Path, work: WorkFolder
) -> TargetCache:
    """Build a whole cache, as the stage does."""
    made = CacheBuild(config, data, weights, work, CPU)
    made.compute()
    made.finish(folder)
    return TargetCache(folder, f"cache@{config.name}")


def build_shard(data: Prepared, weights: Path, work: WorkFolder, shard: Shard) -> None:
    """Build one process's share of the default cache."""
    CacheBuild(cache_slice(), data, weights, work, CPU, shard).compute()


def make_cache(
    data: Prepared, folder: Path, name: str = "one", seed: int = 1, **cache: Any
) -> TargetCache:
    """Build the cache of a new teacher, in `folder/caches/name`."""
    weights = teacher(folder / "teachers", name, seed)
    work = WorkFolder(folder / "work", f"cache@{name}", {"cache": str(cache), "seed": seed})
    return build_cache(cache_slice(name, **cache), data, weights, folder / "caches" / name, work)


def stored(cache: TargetCache, name: str) -> Array:
    """What a cache holds under a name: `(views, images, values)`."""
    return np.stack([cache.records(view)[name] for view in range(cache.manifest["view_count"])])


def build_ensemble(
    folder: Path, *teachers: str, weights: str = "uniform", labels: Labels = LABELS
) -> Ensemble:
    """Build the ensemble of the caches in `folder/caches`, in `folder/ensemble`."""
    config = EnsembleSlice.model_validate({"teachers": teachers, "weights": weights})
    ensemble_build.build_ensemble(config, folder / "caches", folder / "ensemble", labels)
    return Ensemble(folder / "ensemble")
