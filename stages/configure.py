"""Check params.yaml and cut it into one resolved slice per stage."""

from __future__ import annotations

import os
from pathlib import Path

from meal.configure.checks import checked_slices
from meal.configure.schema import load_params
from meal.core.errors import UserError
from meal.core.files import atomic_folder, write_sealed
from meal.core.paths import CONFIG, PARAMS
from meal.core.stage import run_stage


def main() -> None:
    """Write the slices, or report every fault."""
    try:
        slices = checked_slices(load_params(PARAMS), PARAMS.name)
    except UserError as error:  # DVC has already written what `dvc exp run -S` gave
        _show_to_git(PARAMS)
        raise UserError(f"{error}\nto undo changes of {PARAMS}: git checkout {PARAMS}") from None
    with atomic_folder(CONFIG) as temporary:
        for name, part in slices.items():
            write_sealed(temporary / f"{name}.json", part)


def _show_to_git(path: Path) -> None:
    """Give a file another time: git overlooks a change of no size within its own second."""
    if path.exists():
        later = path.stat().st_mtime + 2
        os.utime(path, (later, later))


if __name__ == "__main__":
    run_stage(main)
