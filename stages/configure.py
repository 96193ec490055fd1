"""Check params.yaml and cut it into one resolved slice per stage."""

from __future__ import annotations

from meal.config.loading import check_choice, load_params
from meal.config.slices import resolve
from meal.data.sources import SOURCES
from meal.files import atomic_folder, write_json
from meal.nets.zoo import ZOO
from stages.common import CONFIG, PARAMS, run_stage


def main() -> None:
    """Write the slices, or name every fault."""
    params = load_params(PARAMS)
    check_choice(PARAMS.name, "dataset", params.dataset, SOURCES)
    for name, network in params.networks.items():
        check_choice(PARAMS.name, f"networks.{name}.arch", network.arch, ZOO)
        if network.width != 1 and not ZOO[network.arch].scales:
            scaling = ", ".join(arch for arch, entry in ZOO.items() if entry.scales)
            raise ValueError(
                f"{PARAMS.name}: networks.{name}.width={network.width:g}: {network.arch} has width "
                f"1 alone; architectures with others: {scaling}"
            )
    classes, top_k = SOURCES[params.dataset].classes, params.cache.top_k
    if classes and top_k and top_k >= classes:
        raise ValueError(
            f"{PARAMS.name}: cache.top_k={top_k}: {params.dataset} has {classes} classes; "
            f"allowed: 1 to {classes - 1}, or null"
        )
    try:
        slices = resolve(params, flip=SOURCES[params.dataset].flip)
    except ValueError as error:
        raise ValueError(f"{PARAMS.name}: {error}") from None
    with atomic_folder(CONFIG) as temporary:
        for name, part in slices.items():
            write_json(temporary / f"{name}.json", part.model_dump(mode="json"))


if __name__ == "__main__":
    run_stage(main)
