"""Check params.yaml and cut it into one resolved slice per stage."""

from __future__ import annotations

from pathlib import Path

from meal.config.loading import check_choice, load_params
from meal.config.schema import Params, WeightsFile
from meal.config.slices import resolve
from meal.data.sources import SOURCES
from meal.files import atomic_folder, write_json
from meal.nets.origins import check, source_digest
from stages.common import CONFIG, PARAMS, run_stage


def main() -> None:
    """Write the slices, or name every fault."""
    params = load_params(PARAMS)
    check_choice(PARAMS.name, "dataset", params.dataset, SOURCES)
    sources = {}
    for name, network in params.networks.items():
        try:
            check(network)
            sources[name] = source_digest(network.arch)
        except ValueError as error:
            raise ValueError(f"{PARAMS.name}: networks.{name}.{error}") from None
    _check_files(params)
    classes, top_k = SOURCES[params.dataset].classes, params.cache.top_k
    if classes and top_k and top_k >= classes:
        raise ValueError(
            f"{PARAMS.name}: cache.top_k={top_k}: {params.dataset} has {classes} classes; "
            f"allowed: 1 to {classes - 1}, or null"
        )
    try:
        slices = resolve(params, flip=SOURCES[params.dataset].flip, sources=sources)
    except ValueError as error:
        raise ValueError(f"{PARAMS.name}: {error}") from None
    with atomic_folder(CONFIG) as temporary:
        for name, part in slices.items():
            write_json(temporary / f"{name}.json", part.model_dump(mode="json"))


def _check_files(params: Params) -> None:
    """Every file of weights must be there; its checksum is compared when it is read."""
    named = {f"networks.{name}.weights": params.networks[name].weights for name in params.teachers}
    for key, weights in {**named, "distill.init": params.distill.init}.items():
        file = weights.file if isinstance(weights, WeightsFile) else None
        if file is not None and not Path(file).is_file():
            raise ValueError(f"{PARAMS.name}: {key}.file={file!r}: no such file is here")


if __name__ == "__main__":
    run_stage(main)
