"""A distillation run: the student's epochs over cached views and the targets for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor

from meal.core.seeds import Purpose, derive_seed
from meal.data.prepared import Prepared
from meal.distill.mixup import mix
from meal.distill.objective import DistillationObjective
from meal.distill.settings import DistillSlice
from meal.distill.teachers import TargetReader, Targets, ViewBatch
from meal.models.checkpoint import load_foreign
from meal.models.factory import build, check_structure, with_blocks
from meal.models.memory import check_memory
from meal.models.spec import NetworkSpec, specify
from meal.targets.ensemble import Ensemble
from meal.training.checkpoints import Checkpoints
from meal.training.engine import Run, Trained, train
from meal.training.validation import validator
from meal.views.batches import epoch_batches, steps_per_epoch
from meal.views.families import view_family
from meal.views.pipelines import PlainPipeline, ViewPipeline

Batches = Callable[[int, int], Iterator[tuple[Tensor, Tensor, Targets]]]


def distill(
    config: DistillSlice,
    data: Prepared,
    ensemble: Ensemble,
    device: torch.device,
    checkpoints: Checkpoints,
) -> Trained:
    """Train the student on the teachers' outputs; epoch `e` uses view `e mod view_count`.

    Raises:
        UserError: if the cached outputs are for other data or views, or `init` does not fit.
    """
    settings = config.distill
    views = view_family(config.views)
    ensemble.check(data.fingerprint, views.identity, config.view_count)
    seed = derive_seed(settings.seed, Purpose.STUDENT)
    spec = specify(config.network, data)
    check_memory(spec, device, settings.batch_size)
    objective = build_objective(config, spec, ensemble, seed).to(device)
    pipeline = ViewPipeline(PlainPipeline.of(data, "train", device), views)
    return train(
        Run(
            title=f"student {config.name}",
            spec=spec,
            objective=objective,
            settings=settings,
            seed=seed,
            ema=settings.ema,
            steps_per_epoch=steps_per_epoch(len(pipeline), settings.batch_size),
            batches=distillation_batches(config, data, ensemble, pipeline, seed),
            validate=validator(data, device),
            checkpoints=checkpoints,
        )
    )


def build_objective(
    config: DistillSlice, spec: NetworkSpec, ensemble: Ensemble, seed: int
) -> DistillationObjective:
    """The student with its initial weights, and the outputs compared with the teachers'."""
    settings = config.distill
    check_structure(spec)
    network = build(spec, seed)
    if settings.init is not None:
        load_foreign(network, settings.init, "distill.init")
    student = with_blocks(network, spec, config.block_count, config.alignment)
    _print_skipped_blocks(settings.blocks, student.block_levels, ensemble, config.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, Purpose.DISCRIMINATORS))
        return DistillationObjective(
            student,
            settings,
            spec.classes,
            top_k=ensemble.mean.manifest["top_k"] is not None,
            projected=ensemble.block_sizes() if config.alignment == "projected" else None,
        )


def distillation_batches(
    config: DistillSlice, data: Prepared, ensemble: Ensemble, pipeline: ViewPipeline, seed: int
) -> Batches:
    """A function from an epoch and a step in it to the inputs of that step and all later ones."""
    settings, device = config.distill, pipeline.device
    labels = data.labels("train").to(device)
    steps = steps_per_epoch(len(pipeline), settings.batch_size)
    shuffle = derive_seed(seed, Purpose.SHUFFLE)
    reader = TargetReader(ensemble, settings, seed, device)

    def batches(epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor, Targets]]:
        view = epoch % config.view_count
        order = epoch_batches(len(pipeline), settings.batch_size, shuffle, epoch)
        read = pipeline.batches(islice(order, first, None), view)
        for step, (rows, pixels) in enumerate(read, start=epoch * steps + first):
            own = labels[rows.to(device, non_blocking=True)]
            if settings.mixup:
                draw = derive_seed(seed, Purpose.MIXUP, step)
                pixels, own = mix(pixels, own, data.classes, settings.mixup, draw)
            yield pixels, own, reader.targets(ViewBatch(rows, view, step, pixels))

    return batches


def _print_skipped_blocks(
    blocks: list[int], student: dict[int, int], ensemble: Ensemble, name: str
) -> None:
    """Print a line for each block that the student or a teacher lacks."""
    for block in blocks:
        if block not in student:
            print(f"block {block} is skipped: the student {name} lacks it", flush=True)
            continue
        for teacher, cache in ensemble.members.items():
            if block not in cache.blocks:
                print(f"block {block} is skipped for {teacher}, which lacks it", flush=True)
