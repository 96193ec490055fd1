"""Cutting the parameters: what each stage reads, with nothing left to choose.

The stages' own models (`SupervisedSlice`, `CacheSlice`, ...) read what is written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meal.configure.schema import Params
from meal.training.settings import Schedule

Slices = dict[str, dict[str, Any]]


def resolve(params: Params, *, flip: bool, sources: Mapping[str, str | None]) -> Slices:
    """Cut checked parameters into the slices of the stages, keyed by their path.

    Args:
        params: the checked parameters.
        flip: whether the dataset's images may be mirrored, for `views.flip: auto`.
        sources: digests of the user's own code, by network.

    Raises:
        UserError: if there are fewer views than `views.count`.
    """
    family, view_count = params.views.resolve(flip)
    views = family.model_dump(mode="json")
    networks = {
        name: {**network.model_dump(mode="json"), "source": sources.get(name)}
        for name, network in params.networks.items()
    }
    # Weights are for teachers; student and baseline start from their own.
    student = {**networks[params.student], "weights": None}
    teaching = params.teaching.model_dump(mode="json")
    # The baseline has the student's number of steps and learning-rate schedule.
    shared = {"epochs", "batch_size", *Schedule.model_fields}
    budget = params.distill.model_dump(mode="json", include=shared)
    slices: Slices = {
        "prepare": {"dataset": params.dataset, "data": params.data.model_dump(mode="json")},
        "ensemble": {"teachers": params.teachers, "weights": params.ensemble.weights},
        "baseline": {
            "name": params.student,
            "network": student,
            "views": views,
            "training": {**teaching, **budget},
        },
        "distill": {
            "name": params.student,
            "network": {**student, "seed": 0},  # the student's seed is distill.seed
            "views": views,
            "view_count": view_count,
            "alignment": params.cache.align,
            "block_count": params.cache.blocks,
            "distill": params.distill.model_dump(mode="json"),
        },
    }
    for name in params.teachers:
        loaded = params.networks[name].weights is not None
        slices[f"teachers/{name}"] = {
            "name": name,
            "network": networks[name],
            "views": views,
            "training": None if loaded else teaching,
        }
        slices[f"caches/{name}"] = {
            "name": name,
            "views": views,
            "view_count": view_count,
            "cache": params.cache.model_dump(mode="json"),
        }
    return slices
