"""A distillation run: the student's epochs over cached views and the targets for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, tee
from pathlib import Path

import torch
from torch import Tensor

from meal.core import ranks
from meal.core.runtime import Logger
from meal.core.seeds import Purpose, derive_seed
from meal.data.pools import check_pool, labelled_in_batch
from meal.data.prepared import Prepared
from meal.distill.objective import LOGITS, DistillationObjective
from meal.distill.settings import Distill, DistillSlice
from meal.distill.teachers import TargetBatch, TargetReader, Targets
from meal.metrics import Floats
from meal.models.checkpoint import training_steps
from meal.models.factory import build, check_structure, with_blocks
from meal.models.foreign import load_foreign, load_weights, locate
from meal.models.heads import freeze
from meal.models.memory import check_memory
from meal.models.spec import NetworkSpec, specify
from meal.targets.ensemble import MEAN, Ensemble
from meal.training.checkpoints import Checkpoints
from meal.training.contract import Run, Trained
from meal.training.engine import train
from meal.training.validation import Measure, validator
from meal.views.batches import Visits, steps_per_epoch
from meal.views.families import view_family
from meal.views.pipelines import ViewPipeline

Batches = Callable[[int, int], Iterator[tuple[Tensor, Tensor, Targets]]]


def distill(
    config: DistillSlice,
    data: Prepared,
    ensemble: Ensemble,
    device: torch.device,
    checkpoints: Checkpoints,
    curve: Path | None = None,
    logger: Logger = "none",
) -> Trained:
    """Train the student on the teachers' outputs for a pool of images.

    Pass `p` over the pool uses view `p mod view_count`. An epoch has as many steps as one pass over
    all training images, whatever the pool.

    Raises:
        UserError: if the cached outputs are for other data or views, or `init` does not fit.
    """
    settings = config.distill
    views = view_family(config.views)
    ensemble.check(data.fingerprint, views.identity, config.view_count)
    seed = derive_seed(settings.seed, Purpose.STUDENT)
    spec = specify(config.network, data)
    pool = len(data.training_rows(settings.pool))
    batch_size = ranks.check_divisible("distill.batch_size", settings.batch_size, pool)
    check_memory(spec, device, batch_size // ranks.size(), settings.precision)
    objective = build_objective(config, spec, ensemble, seed).to(device)
    held = freeze(objective.network, spec, settings.frozen, "distill.frozen")
    pipeline = ViewPipeline.of(data, views, device)
    return train(
        Run(
            title=f"student {config.name}",
            spec=spec,
            objective=objective,
            settings=settings,
            seed=seed,
            start_steps=_start_steps(config),
            held=held,
            steps_per_epoch=steps_per_epoch(len(pipeline), settings.batch_size),
            batches=distillation_batches(config, data, ensemble, pipeline, seed),
            validate=validator(data, device, _discriminator_accuracy(objective, ensemble)),
            checkpoints=checkpoints,
            curve=curve,
            logger=logger,
        )
    )


def _start_steps(config: DistillSlice) -> int | None:
    """The steps of training behind the student's first weights; None if they are not known."""
    if config.network.weights is not None:
        return None
    init = config.distill.init
    return training_steps(locate(init, "distill.init")) if init else 0


def _discriminator_accuracy(objective: DistillationObjective, ensemble: Ensemble) -> Measure | None:
    """From the student's logits for the validation images to the accuracy of their discriminator.

    The discriminator has seen neither these images nor the teachers' logits for them. None if there
    is no discriminator for logits.
    """
    if LOGITS not in objective.discriminators:
        return None
    mean = objective.method.selection == MEAN
    caches = [ensemble.mean] if mean else [*ensemble.members.values()]
    targets = [torch.from_numpy(cache.plain_targets("validation")) for cache in caches]
    weights = [1.0] if mean else ensemble.weights

    def measure(logits: Floats) -> dict[str, float]:
        student = torch.from_numpy(logits).float()
        accuracies = [objective.held_out_accuracy(student, teacher) for teacher in targets]
        accuracy = sum(w * each for w, each in zip(weights, accuracies, strict=True))
        return {"discriminator_accuracy": round(accuracy, 2)}

    return measure


def build_objective(
    config: DistillSlice, spec: NetworkSpec, ensemble: Ensemble, seed: int
) -> DistillationObjective:
    """The student with its initial weights, and the outputs compared with the teachers'."""
    settings = config.distill
    check_structure(spec, f"networks.{config.name}")
    network = build(spec, seed)
    load_weights(network, spec, config.network, f"networks.{config.name}.weights")
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
    visited = _visits(settings, data, derive_seed(seed, Purpose.SHUFFLE))
    reader = TargetReader(ensemble, settings, seed, device)

    def batches(epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor, Targets]]:
        start = epoch * steps + first
        order, whole = tee(islice(visited(start), steps - first))
        mine = ((number % config.view_count, rows[ranks.own(len(rows))]) for number, rows in order)
        shown = zip(pipeline.batches(mine), whole, strict=True)
        for step, (batch, (_, rows)) in enumerate(shown, start):
            own = batch.labels(labels, data.classes)
            asked = TargetBatch(rows, batch.view, step, batch.images)
            yield batch.images, own, reader.targets(asked)

    return batches


def _visits(
    settings: Distill, data: Prepared, seed: int
) -> Callable[[int], Iterator[tuple[int, Tensor]]]:
    """From a step to the passes and batches of that step and all later ones.

    Raises:
        UserError: if there are too few images of a kind.
    """
    check_pool(data, settings.pool, settings.labelled_share, settings.batch_size)
    if settings.labelled_share is None:
        return Visits(data.training_rows(settings.pool), settings.batch_size, seed).batches
    known = labelled_in_batch(settings.labelled_share, settings.batch_size)
    labelled = Visits(data.training_rows("labelled"), known, derive_seed(seed, 0))
    unlabelled = data.training_rows("unlabelled")
    others = Visits(unlabelled, settings.batch_size - known, derive_seed(seed, 1))

    def batches(first: int) -> Iterator[tuple[int, Tensor]]:
        pairs = zip(labelled.batches(first), others.batches(first), strict=False)
        # A batch is read from one view, that of the unlabelled images: labelled ones may be seen
        # several times in it.
        for (_, own), (number, rows) in pairs:
            yield number, torch.cat([own, rows])

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
