"""Train one teacher on labels."""

from __future__ import annotations

from meal.config import SupervisedSlice, load_slice
from meal.data.batches import Purpose
from meal.data.prepared import open_prepared
from meal.files import write_csv
from meal.nets import weights
from meal.training.engine import select_device
from meal.training.supervised import train_supervised
from meal.work import WorkFolder
from stages.common import (
    CHECKPOINTS,
    CONFIG,
    DATA,
    TEACHERS,
    TRAINING,
    name_argument,
    run_stage,
    runtime,
)


def main() -> None:
    """Train, then write the weights and the training curve."""
    name = name_argument()
    config = load_slice(SupervisedSlice, CONFIG / "teachers" / f"{name}.json")
    data = open_prepared(DATA)
    identity = {"config": config.model_dump(mode="json"), "data": data.fingerprint}
    work = WorkFolder(CHECKPOINTS, f"teacher@{name}", identity)
    spec, state, history = train_supervised(
        f"teacher {name}", Purpose.TEACHER, config, data, select_device(runtime()), work
    )
    weights.save(TEACHERS / name, spec, state)
    write_csv(TRAINING / "teachers" / f"{name}.csv", history)
    work.remove()


if __name__ == "__main__":
    run_stage(main)
