"""What each stage reads: its slice of the parameters, with nothing left to choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from meal.config.schema import (
    Cache,
    Data,
    Distill,
    Network,
    Params,
    Schedule,
    Section,
    Training,
    ViewsSlice,
)


class PrepareSlice(Section):
    """What `prepare` reads."""

    dataset: str
    data: Data


class NetworkSlice(Network):
    """A network; `source` is a digest of the user's own code that builds it."""

    source: str | None = None


class SupervisedSlice(Section):
    """What `teacher@NAME` and `baseline` read; `training` is None for a teacher with weights."""

    name: str
    network: NetworkSlice
    views: ViewsSlice
    training: Training | None


class CacheSlice(Section):
    """What `cache@NAME` reads."""

    name: str
    views: ViewsSlice
    view_count: int
    cache: Cache


class EnsembleSlice(Section):
    """What `ensemble` reads."""

    teachers: list[str]
    weights: Literal["uniform", "fitted"] = "uniform"


class DistillSlice(Section):
    """What `distill` reads. `block_count`: into how many blocks the student is cut."""

    name: str
    network: NetworkSlice
    views: ViewsSlice
    view_count: int
    alignment: Literal["spatial", "projected"] = "spatial"
    block_count: int
    distill: Distill


def resolve(params: Params, *, flip: bool, sources: Mapping[str, str | None]) -> dict[str, Section]:
    """Cut checked parameters into the slices of the stages, keyed by their path.

    Args:
        params: the checked parameters.
        flip: whether the dataset's images may be mirrored, for `views.flip: auto`.
        sources: digests of the code of networks, by name, for those of the user's own.
    """
    views, view_count = params.views.resolve(flip)
    networks = {
        name: NetworkSlice(**network.model_dump(), source=sources.get(name))
        for name, network in params.networks.items()
    }
    # Weights are a teacher's; student and baseline start from their own.
    student = networks[params.student].model_copy(update={"weights": None})
    # The baseline gets the student's budget, so equal steps, and the course of its rate.
    budget = {name: getattr(params.distill, name) for name in ("epochs", "batch_size")}
    budget |= {name: getattr(params.distill, name) for name in Schedule.model_fields}
    slices: dict[str, Section] = {
        "prepare": PrepareSlice(dataset=params.dataset, data=params.data),
        "ensemble": EnsembleSlice(teachers=params.teachers, weights=params.ensemble.weights),
        "baseline": SupervisedSlice(
            name=params.student,
            network=student,
            views=views,
            training=params.teaching.model_copy(update=budget),
        ),
        "distill": DistillSlice(
            name=params.student,
            network=student.model_copy(update={"seed": 0}),  # the student's is distill.seed
            views=views,
            view_count=view_count,
            alignment=params.cache.align,
            block_count=params.cache.blocks,
            distill=params.distill,
        ),
    }
    for name in params.teachers:
        loaded = networks[name].weights is not None
        slices[f"teachers/{name}"] = SupervisedSlice(
            name=name,
            network=networks[name],
            views=views,
            training=None if loaded else params.teaching,
        )
        slices[f"caches/{name}"] = CacheSlice(
            name=name, views=views, view_count=view_count, cache=params.cache
        )
    return slices
