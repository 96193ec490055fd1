"""Train one teacher on labels."""

from __future__ import annotations

from meal.data.batches import Purpose
from stages.common import CONFIG, TEACHERS, TRAINING, name_argument, run_stage
from stages.supervised import train_on_labels


def main() -> None:
    """Train the named teacher."""
    name = name_argument()
    train_on_labels(
        stage=f"teacher@{name}",
        purpose=Purpose.TEACHER,
        slice_=CONFIG / "teachers" / f"{name}.json",
        folder=TEACHERS / name,
        curve=TRAINING / "teachers" / f"{name}.csv",
    )


if __name__ == "__main__":
    run_stage(main)
