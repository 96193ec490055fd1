"""Train the student's network on labels, for as many steps as the student takes."""

from __future__ import annotations

from meal.config import SupervisedSlice, load_slice
from meal.data.batches import Purpose
from meal.data.prepared import open_prepared
from meal.files import write_csv
from meal.nets import weights
from meal.training.engine import select_device
from meal.training.supervised import train_supervised
from meal.work import WorkFolder
from stages.common import BASELINE, CHECKPOINTS, CONFIG, DATA, TRAINING, run_stage, runtime


def main() -> None:
    """Train, then write the weights and the training curve."""
    config = load_slice(SupervisedSlice, CONFIG / "baseline.json")
    data = open_prepared(DATA)
    identity = {"config": config.model_dump(mode="json"), "data": data.fingerprint}
    work = WorkFolder(CHECKPOINTS, "baseline", identity)
    spec, state, history = train_supervised(
        f"baseline {config.name}", Purpose.BASELINE, config, data, select_device(runtime()), work
    )
    weights.save(BASELINE, spec, state)
    write_csv(TRAINING / "baseline.csv", history)
    work.remove()


if __name__ == "__main__":
    run_stage(main)
