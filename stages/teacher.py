"""Train one teacher on labels, or load its weights."""

from __future__ import annotations

import sys

from meal.core.paths import CONFIG, TEACHERS, TRAINING
from meal.core.seeds import Purpose
from meal.core.stage import run_stage, teacher_argument
from meal.supervised.run import run


def main() -> None:
    """Train or load the named teacher."""
    name = teacher_argument(sys.argv[1:])
    run(
        stage=f"teacher@{name}",
        purpose=Purpose.TEACHER,
        config=CONFIG / "teachers" / f"{name}.json",
        folder=TEACHERS / name,
        curve=TRAINING / "teachers" / f"{name}.csv",
    )


if __name__ == "__main__":
    run_stage(main, ranked=True)
