"""Training a network on labels, as the stages `teacher@NAME` and `baseline` do."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from meal.core import ranks
from meal.core.device import open_device
from meal.core.paths import CACHES, CHECKPOINTS, CONFIG, TEACHERS
from meal.core.runtime import Logger, load_runtime
from meal.core.seeds import Purpose, derive_seed
from meal.core.settings import load_slice
from meal.core.work import WorkFolder
from meal.data.prepared import Prepared, open_data
from meal.models.factory import build, check_structure
from meal.models.foreign import load_weights
from meal.models.heads import freeze
from meal.models.memory import check_memory
from meal.models.spec import specify
from meal.supervised.ahead import check_all, check_disk, frozen_key
from meal.supervised.chance import worse_than_chance
from meal.supervised.loading import load_teacher
from meal.supervised.objective import SupervisedObjective
from meal.supervised.settings import SupervisedSlice
from meal.training.checkpoints import Checkpoints
from meal.training.contract import Run, Trained
from meal.training.engine import best_epoch, train
from meal.training.validation import validator
from meal.views.batches import Visits, steps_per_epoch
from meal.views.families import view_family
from meal.views.pipelines import ViewPipeline
from meal.views.settings import ViewsSlice

LOGGER = logging.getLogger(__name__)


def run(stage: str, purpose: Purpose, config: Path, folder: Path, curve: Path) -> None:
    """Train a network, or load its weights; resume unfinished training.

    Args:
        stage: the name of the stage.
        purpose: teacher or baseline; the same seed gives each different draws.
        config: the slice.
        folder: the output folder of the network.
        curve: the output file of its training curve.
    """
    settings, data, runtime = load_slice(SupervisedSlice, config), open_data(), load_runtime()
    device = open_device(runtime)
    identity = {"config": settings.model_dump(mode="json"), "data": data.fingerprint}
    work = WorkFolder(CHECKPOINTS, stage, identity)
    if purpose is Purpose.TEACHER:
        check_disk(CONFIG / "caches", CACHES, TEACHERS, data)
        check_all(CONFIG, data, device)
    if settings.training is None:
        trained = load_teacher(settings, data, device)
    else:
        checkpoints = Checkpoints(work, runtime.checkpoint_minutes)
        trained = train_supervised(
            stage, purpose, settings, data, device, checkpoints, curve, runtime.logger
        )
    trained.save(folder, curve)
    work.remove()


def train_supervised(
    title: str,
    purpose: Purpose,
    config: SupervisedSlice,
    data: Prepared,
    device: torch.device,
    checkpoints: Checkpoints,
    curve: Path | None = None,
    logger: Logger = "none",
) -> Trained:
    """Train a network on the labelled images; pass `p` over them uses view `p` of each.

    An epoch has as many steps as one over all training images, labelled or not: with few labels,
    the labelled images are seen several times in an epoch, and every network has as many steps.

    Args:
        title: shown beside the progress bar.
        purpose: teacher or baseline; the same seed gives each different draws.
        config: network, views and training.
        data: the prepared data.
        device: the device to train on.
        checkpoints: of this run.
        curve: the file of the training curve; None for no file.
        logger: the tracker that receives it, too.
    """
    settings = config.training
    assert settings is not None
    seed, views = _draws(config, purpose)
    spec = specify(config.network, data)
    known = len(data.training_rows("labelled"))
    if settings.batch_size > known:
        LOGGER.warning(
            "%s: batch_size=%d: there are only %d labelled images, so every batch is all of them",
            title,
            settings.batch_size,
            known,
        )
    batch_size = ranks.check_divisible(f"{title}: batch_size", settings.batch_size, known)
    check_memory(spec, device, batch_size // ranks.size(), settings.precision)
    check_structure(spec, f"networks.{config.name}")
    network = build(spec, seed)
    load_weights(network, spec, config.network, f"networks.{config.name}.weights")
    held = freeze(network, spec, settings.frozen, frozen_key(config.name, purpose))
    pipeline = ViewPipeline.of(data, view_family(views), device)
    labels = data.labels("train").to(device)
    steps = steps_per_epoch(len(pipeline), settings.batch_size)
    labelled, shuffle = data.training_rows("labelled"), derive_seed(seed, Purpose.SHUFFLE)
    visits = Visits(labelled, settings.batch_size, shuffle)

    def batches(epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = islice(visits.batches(epoch * steps + first), steps - first)
        mine = ((view, rows[ranks.own(len(rows))]) for view, rows in order)
        for batch in pipeline.batches(mine):
            yield batch.images, batch.labels(labels, data.classes)

    trained = train(
        Run(
            title=title,
            spec=spec,
            objective=SupervisedObjective(network.to(device), settings),
            settings=settings,
            seed=seed,
            steps_per_epoch=steps,
            batches=batches,
            validate=validator(data, device),
            checkpoints=checkpoints,
            curve=curve,
            logger=logger,
            start_steps=0 if config.network.weights is None else None,
            held=held,
        )
    )
    row = best_epoch(trained.history) if settings.keep == "best" else trained.history[-1]
    fault = worse_than_chance(row["validation_top1_error"], data.labels("validation").numpy())
    if fault is not None:
        LOGGER.warning(
            "%s: %sthe learning rate is too high or too low, or epochs or labels are too few%s",
            title,
            fault,
            ", or too much is frozen" if held else "",
        )
    return trained


def _draws(config: SupervisedSlice, purpose: Purpose) -> tuple[int, ViewsSlice]:
    """The seed of a network's weights and orders, and its views.

    A teacher's depend on its name: teachers that see the same images in the same order make more
    of the same errors. The baseline's views are from the family of the student's.
    """
    number = zlib.crc32(config.name.encode())
    seed, views = derive_seed(config.network.seed, purpose, number), config.views
    if purpose is Purpose.TEACHER:
        views = views.model_copy(update={"seed": derive_seed(views.seed, purpose, number)})
    return seed, views
