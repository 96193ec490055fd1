"""Cutting the parameters into slices: what each stage reads, with every default resolved.

The stages' own models (`SupervisedSlice`, `CacheSlice`, ...) read what is written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meal.configure.defaults import changed
from meal.configure.schema import Params
from meal.datasets.registry import Dataset
from meal.training.settings import Training

Slices = dict[str, dict[str, Any]]

_STRIDE = 1_000_003  # between runs: larger than seeds that people choose, and prime


def resolve(params: Params, dataset: Dataset, sources: Mapping[str, str | None]) -> Slices:
    """Cut checked parameters into the slices of the stages, keyed by their path.

    Args:
        params: the checked parameters.
        dataset: the one that they name.
        sources: digests of the user's own code, by network.

    Raises:
        UserError: if an image has fewer views than `views.count`, or `all` of unlimited views.
    """
    given, params = params, _seeded(params)
    family, view_count = params.views.resolve(dataset.flip)
    cached = {"views": family.model_dump(mode="json"), "view_count": view_count}
    networks = {
        name: {**network.model_dump(mode="json", exclude={"training"}), "source": sources.get(name)}
        for name, network in params.networks.items()
    }
    slices: Slices = {
        "prepare": {"dataset": params.dataset, "data": params.data.model_dump(mode="json")},
        "ensemble": {"teachers": params.teachers, "weights": params.ensemble.weights},
    }
    slices |= _student_slices(params, networks[params.student], cached)
    slices["export"] = {
        "name": params.student,
        "licence": dataset.licence,
        "teachers": {
            name: {key: networks[name][key] for key in ("arch", "width")}
            for name in params.teachers
        },
        "method": params.distill.model_dump(mode="json"),
        **params.export.model_dump(mode="json"),
    }
    slices["report"] = {
        "params": given.model_dump(mode="json", exclude={"runtime"}),
        "changed": changed(given),
        "training": {
            "baseline": slices["baseline"]["training"],
            "student": {name: slices["distill"]["distill"][name] for name in Training.model_fields},
        },
    }
    for name in params.teachers:
        views = params.teacher_views(name).family(params.views.seed, dataset.flip)
        shown = views.model_dump(mode="json")
        slices |= _teacher_slices(params, name, networks[name], shown, cached)
    return slices


def _seeded(params: Params) -> Params:
    """The parameters with every seed shifted by `seed`, so that one flag repeats a whole run."""

    def shifted(seed: int) -> int:
        return (seed + _STRIDE * params.seed) % 2**63

    networks = {
        name: network.model_copy(update={"seed": shifted(network.seed)})
        for name, network in params.networks.items()
    }
    data, views, distill, baseline = params.data, params.views, params.distill, params.baseline
    return params.model_copy(
        update={
            "networks": networks,
            "data": data.model_copy(update={"split_seed": shifted(data.split_seed)}),
            "views": views.model_copy(update={"seed": shifted(views.seed)}),
            "distill": distill.model_copy(update={"seed": shifted(distill.seed)}),
            "baseline": baseline.model_copy(update={"seed": shifted(baseline.seed)}),
        }
    )


def _student_slices(params: Params, network: dict[str, Any], cached: dict[str, Any]) -> Slices:
    """What the stages of the student's network read."""
    if network["head"] != "new":  # these weights are a teacher's
        network = {**network, "weights": None}
    return {
        "baseline": {
            "name": params.student,
            "network": {**network, "seed": params.baseline.seed},
            "views": cached["views"],
            "training": params.baseline_training.model_dump(mode="json"),
        },
        "distill": {
            "name": params.student,
            "network": {**network, "seed": 0},  # the student's seed is distill.seed
            **cached,
            "alignment": params.cache.align,
            "block_count": params.cache.blocks,
            "distill": params.distill.model_dump(mode="json"),
        },
    }


def _teacher_slices(
    params: Params,
    name: str,
    network: dict[str, Any],
    views: dict[str, Any],
    cached: dict[str, Any],
) -> Slices:
    """What the stages of one teacher read; it is trained on `views`, and cached for others."""
    training = params.teacher_training(name)
    return {
        f"teachers/{name}": {
            "name": name,
            "network": network,
            "views": views,
            "training": training and training.model_dump(mode="json", exclude={"views"}),
        },
        f"caches/{name}": {
            "name": name,
            **cached,
            "cache": params.cache.model_dump(mode="json"),
        },
    }
