"""Parameters to slices, after every check that needs the tables of datasets and networks."""

from __future__ import annotations

from pathlib import Path

from meal.config.loading import check_choice
from meal.config.schema import Params, Section, WeightsFile
from meal.config.slices import resolve
from meal.data.sources import SOURCES
from meal.nets.origins import check, source_digest


def checked_slices(params: Params, source: str) -> dict[str, Section]:
    """The slices of the stages, keyed by their path.

    Args:
        params: parameters that fit their schema.
        source: the file they come from, for messages.

    Raises:
        ValueError: if a dataset, an architecture or a file of weights is not there, or does not
            take what is asked of it.
    """
    check_choice(source, "dataset", params.dataset, SOURCES)
    digests = {}
    for name, network in params.networks.items():
        try:
            check(network)
            digests[name] = source_digest(network.arch)
        except ValueError as error:
            raise ValueError(f"{source}: networks.{name}.{error}") from None
    for key, weights in weights_files(params).items():
        if weights.file is not None and not Path(weights.file).is_file():
            raise ValueError(f"{source}: {key}.file={weights.file!r}: no such file is here")
    dataset = SOURCES[params.dataset]
    if params.data.store == "index" and not dataset.files:
        raise ValueError(
            f"{source}: data.store='index': {params.dataset} is no folder of image files; "
            "allowed: auto, array"
        )
    if params.dataset == "folder" and params.data.root is None:
        raise ValueError(f"{source}: data.root=None: dataset: folder needs the images' folder")
    classes, top_k = dataset.classes, params.cache.top_k
    if classes and top_k and top_k >= classes:
        raise ValueError(
            f"{source}: cache.top_k={top_k}: {params.dataset} has {classes} classes; "
            f"allowed: 1 to {classes - 1}, or null"
        )
    try:
        return resolve(params, flip=dataset.flip, sources=digests)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def weights_files(params: Params) -> dict[str, WeightsFile]:
    """The files of weights that a run of these parameters reads, by their key."""
    named = {f"networks.{name}.weights": params.networks[name].weights for name in params.teachers}
    everything = {**named, "distill.init": params.distill.init}
    return {key: value for key, value in everything.items() if isinstance(value, WeightsFile)}
