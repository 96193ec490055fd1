"""Check params.yaml and cut it into one resolved slice per stage."""

from __future__ import annotations

from meal.config.loading import load_params
from meal.files import atomic_folder, write_json
from meal.nets.resolving import checked_slices
from stages.common import CONFIG, PARAMS, run_stage


def main() -> None:
    """Write the slices, or name every fault."""
    slices = checked_slices(load_params(PARAMS), PARAMS.name)
    with atomic_folder(CONFIG) as temporary:
        for name, part in slices.items():
            write_json(temporary / f"{name}.json", part.model_dump(mode="json"))


if __name__ == "__main__":
    run_stage(main)
