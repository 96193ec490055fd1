"""Train the student's network on labels, for as many steps as the student takes."""

from __future__ import annotations

from meal.data.batches import Purpose
from meal.files import write_json
from meal.metrics import log_softmax, summary
from meal.nets import weights
from meal.nets.inference import split_logits
from stages.common import BASELINE, CONFIG, REPORTS, TRAINING, run_stage
from stages.supervised import train_on_labels


def main() -> None:
    """Train the baseline, and score it on validation, where the student is compared with it."""
    data, device = train_on_labels(
        stage="baseline",
        purpose=Purpose.BASELINE,
        slice_=CONFIG / "baseline.json",
        folder=BASELINE,
        curve=TRAINING / "baseline.csv",
    )
    network = weights.load(BASELINE)[1].to(device)
    answers = log_softmax(split_logits(network, data, "validation", device))
    scores = summary(answers, data.labels("validation").numpy())
    write_json(REPORTS / "validation_baseline.json", {"baseline": scores})


if __name__ == "__main__":
    run_stage(main)
