"""What each stage reads: its slice of the parameters, with nothing left to choose."""

from __future__ import annotations

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


class SupervisedSlice(Section):
    """What `teacher@NAME` and `baseline` read."""

    name: str
    network: Network
    views: ViewsSlice
    training: Training


class CacheSlice(Section):
    """What `cache@NAME` reads."""

    name: str
    views: ViewsSlice
    view_count: int
    cache: Cache


class EnsembleSlice(Section):
    """What `ensemble` reads."""

    teachers: list[str]


class DistillSlice(Section):
    """What `distill` reads. `block_count`: into how many blocks the student is cut."""

    name: str
    network: Network
    views: ViewsSlice
    view_count: int
    block_count: int
    distill: Distill


def resolve(params: Params, *, flip: bool) -> dict[str, Section]:
    """Cut checked parameters into the slices of the stages, keyed by their path.

    Args:
        params: the checked parameters.
        flip: whether the dataset's images may be mirrored, for `views.flip: auto`.
    """
    views, view_count = params.views.resolve(flip)
    student = params.networks[params.student]
    # The baseline gets the student's budget, so equal steps, and the course of its rate.
    budget = {name: getattr(params.distill, name) for name in ("epochs", "batch_size")}
    budget |= {name: getattr(params.distill, name) for name in Schedule.model_fields}
    slices: dict[str, Section] = {
        "prepare": PrepareSlice(dataset=params.dataset, data=params.data),
        "ensemble": EnsembleSlice(teachers=params.teachers),
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
            block_count=params.cache.blocks,
            distill=params.distill,
        ),
    }
    for name in params.teachers:
        slices[f"teachers/{name}"] = SupervisedSlice(
            name=name, network=params.networks[name], views=views, training=params.teaching
        )
        slices[f"caches/{name}"] = CacheSlice(
            name=name, views=views, view_count=view_count, cache=params.cache
        )
    return slices
