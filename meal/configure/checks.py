"""From parameters to slices, with the checks that need the datasets or the architectures."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from meal.configure.schema import Params
from meal.configure.slices import Slices, resolve
from meal.core.digests import sha256
from meal.core.errors import UserError
from meal.core.paths import project_root
from meal.datasets.registry import DATASETS, Dataset
from meal.models.architectures import check, own_digest
from meal.models.hub import published_input
from meal.models.settings import WeightsFile
from meal.training.settings import Schedule, Training

LOGGER = logging.getLogger(__name__)


def checked_slices(params: Params, source: str) -> Slices:
    """The slices of the stages, keyed by their path.

    Args:
        params: parameters that fit the schema.
        source: the file they come from, for messages.

    Raises:
        UserError: if a dataset, an architecture or a weights file does not exist, or does not
            support its parameters.
    """
    for warning in warnings(params):
        LOGGER.warning("%s: %s", source, warning)
    try:
        _check_device(params.runtime.device)
        digests = _check_networks(params)
        _check_weights(params)
        return resolve(params, _check_dataset(params), digests)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def warnings(params: Params) -> Iterator[str]:
    """What is allowed, but seldom meant."""
    parts: dict[str, Training] = {"teaching": params.teaching, "distill": params.distill}
    for teacher in params.teachers:
        own = params.teacher_training(teacher)
        if own is not None and params.networks[teacher].training:
            parts[f"networks.{teacher}.training"] = own
    if params.baseline.model_extra:
        parts["baseline"] = params.baseline_training
    rates: dict[str, Schedule] = {**parts, "distill.discriminator": params.distill.discriminator}
    for key, rate in rates.items():
        epochs = parts.get(key, params.distill).epochs
        late = [milestone for milestone in rate.milestones if milestone >= epochs]
        if rate.schedule == "step" and late:
            yield f"{key}.milestones={rate.milestones}: the run ends before {late[0]}, at {epochs}"
        if rate.warmup_epochs >= epochs:
            yield (
                f"{key}.warmup_epochs={rate.warmup_epochs:g}: the run of {epochs} epoch(s) ends "
                "before the full rate"
            )
    for name in (*params.teachers, None):
        training = params.teacher_training(name) if name else params.distill
        network = params.networks[name or params.student]
        started = network.weights or (name is None and params.distill.init)
        if training is not None and training.frozen == "backbone" and not started:
            key = "distill" if name is None else f"teaching or networks.{name}.training"
            yield f"{key}.frozen='backbone': without weights, the backbone stays as it was drawn"
    minutes = params.runtime.checkpoint_minutes
    if minutes < 1:
        yield f"runtime.checkpoint_minutes={minutes:g}: so many checkpoints slow the training"


def weights_files(params: Params) -> dict[str, WeightsFile]:
    """The weights files that a run of these parameters reads, by their key."""
    used = [*params.teachers, params.student]
    named = {f"networks.{name}.weights": params.networks[name].weights for name in used}
    everything = {**named, "distill.init": params.distill.init}
    return {key: value for key, value in everything.items() if isinstance(value, WeightsFile)}


def _check_networks(params: Params) -> dict[str, str | None]:
    """Check every network; return the digest of the user's own code for each."""
    digests = {}
    for name, network in params.networks.items():
        try:
            check(network)
            if network.weights == "pretrained":
                published_input(network.arch)
            digests[name] = own_digest(network.arch)
        except UserError as error:
            raise UserError(f"networks.{name}.{error}") from None
    return digests


def _check_device(device: str) -> None:
    """Check a named GPU now, not when the first network trains."""
    if device.startswith("cuda"):
        from meal.core.device import select_device  # imports torch

        select_device(device)


def _check_weights(params: Params) -> None:
    for key, weights in weights_files(params).items():
        if weights.file is not None and not Path(weights.file).is_file():
            copied = project_root() != Path.cwd()
            hint = "; this copy of the project holds only files in git: give the absolute path"
            raise UserError(f"{key}.file={weights.file!r}: no such file{hint if copied else ''}")
        found = None if weights.file is None else sha256(Path(weights.file))
        if found not in (None, weights.sha256):
            raise UserError(f"{key}.sha256={weights.sha256!r}: {weights.file} has {found}")


def _check_pool(params: Params, dataset: Dataset) -> None:
    """Check that there can be unlabelled images if the student asks for them."""
    distill = params.distill
    if params.data.labelled != "all" or dataset.unlabelled:
        return
    for key, asked in (
        ("pool", distill.pool == "unlabelled"),
        ("labelled_share", distill.labelled_share is not None),
    ):
        if asked:
            raise UserError(
                f"distill.{key}={getattr(distill, key)!r}: every image of {params.dataset} has a "
                "label; set data.labelled to a number or a fraction of them"
            )


def _check_dataset(params: Params) -> Dataset:
    """Check what depends on the dataset, and return it."""
    name = params.dataset
    if name not in DATASETS:
        raise UserError(f"dataset={name!r}: unknown; allowed: {', '.join(sorted(DATASETS))}")
    dataset = DATASETS[name]
    if params.data.store == "index" and not dataset.files:
        raise UserError(
            f"data.store='index': {name} is not a folder of image files; allowed: auto, array"
        )
    if name == "folder" and params.data.root is None:
        raise UserError(
            "data.root=auto: dataset folder needs it; set it to the folder of your images"
        )
    _check_pool(params, dataset)
    size = params.data.image_size or dataset.image_size
    for key, views in params.all_views.items():
        padding = views.crop_padding
        if views.crop != "padded":
            continue
        if params.data.source_size is not None:
            raise UserError(
                f"{key}.crop='padded': padded crops have the size of the image; allowed: resized, "
                "or data.source_size: auto"
            )
        if size is not None and padding > size // 2:
            raise UserError(
                f"{key}.crop_padding={padding}: images have {size} pixels; allowed: 0 to "
                f"{size // 2}"
            )
    classes, top_k = dataset.classes, params.cache.top_k
    if classes and top_k and top_k >= classes:
        raise UserError(
            f"cache.top_k={top_k}: {name} has {classes} classes; allowed: 1 to {classes - 1}, "
            "or all"
        )
    return dataset
