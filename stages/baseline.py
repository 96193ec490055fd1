"""Train the student's network on labels, for as many steps as the student takes."""

from __future__ import annotations

from meal.data.batches import Purpose
from meal.data.pipelines import PlainPipeline
from meal.data.prepared import open_prepared
from meal.device import select_device
from meal.files import write_json
from meal.metrics import log_softmax, summary
from meal.nets import weights
from meal.nets.inference import plain_logits
from stages.common import BASELINE, CONFIG, DATA, REPORTS, TRAINING, run_stage, runtime
from stages.supervised import train_on_labels


def main() -> None:
    """Train the baseline, and score it on validation, where the student is compared with it."""
    train_on_labels(
        stage="baseline",
        purpose=Purpose.BASELINE,
        slice_=CONFIG / "baseline.json",
        folder=BASELINE,
        curve=TRAINING / "baseline.csv",
    )
    data, device = open_prepared(DATA), select_device(runtime())
    network = weights.load(BASELINE)[1].to(device)
    answers = log_softmax(plain_logits(network, PlainPipeline.of(data, "validation", device)))
    scores = summary(answers, data.labels("validation").numpy())
    write_json(REPORTS / "validation_baseline.json", {"baseline": scores})


if __name__ == "__main__":
    run_stage(main)
