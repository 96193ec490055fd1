"""A distillation run: the student's epochs over cached views and the teachers' answers to them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from meal.config.slices import DistillSlice
from meal.data.batches import Purpose, derive_seed, epoch_batches, steps_per_epoch
from meal.data.pipelines import PlainPipeline, ViewPipeline
from meal.data.prepared import Prepared
from meal.data.views import view_family
from meal.distillation.mixup import mix
from meal.distillation.objective import DistillationObjective
from meal.files import user_folder
from meal.nets.foreign import load_state, locate, read_state
from meal.nets.origins import specify
from meal.nets.spec import NetworkSpec
from meal.nets.weights import build, with_blocks
from meal.teaching.ensemble import Ensemble
from meal.teaching.targets import TargetReader, Targets, ViewBatch
from meal.training.checkpoint import Checkpoints
from meal.training.engine import History, Run, train
from meal.training.validation import validator


def distil(
    config: DistillSlice,
    data: Prepared,
    ensemble: Ensemble,
    device: torch.device,
    checkpoints: Checkpoints,
) -> tuple[NetworkSpec, dict[str, Tensor], History]:
    """Train the student on the teachers' answers; epoch `e` sees view `e mod view_count`.

    Returns:
        The student's specification, its best state on validation, and the measures by epoch.

    Raises:
        ValueError: if the answers are to other data or other views.
    """
    settings = config.distill
    family = view_family(config.views)
    ensemble.check(data.fingerprint, family.identity, config.view_count)
    spec = specify(config.network, data)
    seed = derive_seed(settings.seed, Purpose.STUDENT)
    network = build(spec, seed)
    if settings.init is not None:
        path = locate(settings.init, "distill.init", user_folder() / "weights")
        load_state(network, read_state(path), f"distill.init: {path}")
    student = with_blocks(network, spec, config.block_count, config.alignment)
    _tell_skipped_blocks(settings.blocks, student.block_levels, ensemble, config.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, Purpose.DISCRIMINATORS))
        objective = DistillationObjective(
            student,
            settings,
            spec.classes,
            top_k=ensemble.mean.manifest["top_k"] is not None,
            projected=ensemble.block_sizes() if config.alignment == "projected" else None,
        ).to(device)
    pipeline = ViewPipeline(PlainPipeline.of(data, "train", device), family)
    labels = data.labels("train").to(device)
    steps = steps_per_epoch(len(pipeline), settings.batch_size)
    shuffle = derive_seed(seed, Purpose.SHUFFLE)
    reader = TargetReader(ensemble, settings, seed, device)

    def batches(epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor, Targets]]:
        view = epoch % config.view_count
        order = epoch_batches(len(pipeline), settings.batch_size, shuffle, epoch)
        read = pipeline.batches(islice(order, first, None), view)
        for step, (rows, pixels) in enumerate(read, start=epoch * steps + first):
            answers = labels[rows.to(device, non_blocking=True)]
            if settings.mixup:
                draw = derive_seed(seed, Purpose.MIXUP, step)
                pixels, answers = mix(pixels, answers, spec.classes, settings.mixup, draw)
            yield pixels, answers, reader.targets(ViewBatch(rows, view, step, pixels))

    state, history = train(
        Run(
            title=f"student {config.name}",
            objective=objective,
            settings=settings,
            seed=seed,
            ema=settings.ema,
            steps_per_epoch=steps,
            batches=batches,
            validate=validator(data, device),
            checkpoints=checkpoints,
        )
    )
    return spec, state, history


def _tell_skipped_blocks(
    wanted: list[int], student: dict[int, int], ensemble: Ensemble, name: str
) -> None:
    """Print a line for each block that one side lacks."""
    for block in wanted:
        if block not in student:
            print(f"block {block} is skipped: the student {name} lacks it", flush=True)
            continue
        for teacher, cache in ensemble.members.items():
            if block not in cache.blocks:
                print(f"block {block} is skipped for {teacher}, which lacks it", flush=True)
