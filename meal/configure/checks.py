"""From parameters to slices, with the checks that need the datasets or the architectures."""

from __future__ import annotations

from pathlib import Path

from meal.configure.schema import Params
from meal.configure.slices import Slices, resolve
from meal.core.errors import UserError
from meal.datasets.registry import DATASETS
from meal.models.architectures import check, own_digest
from meal.models.hub import published_input
from meal.models.settings import WeightsFile


def checked_slices(params: Params, source: str) -> Slices:
    """The slices of the stages, keyed by their path.

    Args:
        params: parameters that fit the schema.
        source: the file they come from, for messages.

    Raises:
        UserError: if a dataset, an architecture or a weights file does not exist, or does not
            support its parameters.
    """
    try:
        digests = _check_networks(params)
        _check_weights(params)
        flip = _check_dataset(params)
        return resolve(params, flip=flip, sources=digests)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def weights_files(params: Params) -> dict[str, WeightsFile]:
    """The weights files that a run of these parameters reads, by their key."""
    named = {f"networks.{name}.weights": params.networks[name].weights for name in params.teachers}
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


def _check_weights(params: Params) -> None:
    for key, weights in weights_files(params).items():
        if weights.file is not None and not Path(weights.file).is_file():
            raise UserError(f"{key}.file={weights.file!r}: no such file")


def _check_dataset(params: Params) -> bool:
    """Check what depends on the dataset; return whether its images may be mirrored."""
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
            "data.root=null: dataset folder needs it; set it to the folder of your images"
        )
    classes, top_k = dataset.classes, params.cache.top_k
    if classes and top_k and top_k >= classes:
        raise UserError(
            f"cache.top_k={top_k}: {name} has {classes} classes; allowed: 1 to {classes - 1}, "
            "or null"
        )
    return dataset.flip
