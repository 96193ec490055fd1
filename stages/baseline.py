"""Train the student's network on labels, optimised like the student."""

from __future__ import annotations

from meal.core import ranks
from meal.core.device import open_device
from meal.core.files import write_json
from meal.core.paths import BASELINE, CONFIG, TRAINING, VALIDATION_BASELINE
from meal.core.runtime import load_runtime
from meal.core.seeds import Purpose
from meal.core.stage import run_stage
from meal.data.prepared import open_data
from meal.metrics import log_softmax, summary
from meal.models.checkpoint import load
from meal.models.prediction import split_logits
from meal.supervised.run import run


def main() -> None:
    """Train the baseline and score it on validation, for comparison with the student."""
    run(
        stage="baseline",
        purpose=Purpose.BASELINE,
        config=CONFIG / "baseline.json",
        folder=BASELINE,
        curve=TRAINING / "baseline.csv",
    )
    data, device = open_data(), open_device(load_runtime())
    network = load(BASELINE).network.to(device)
    log_probabilities = log_softmax(split_logits(network, data, "validation", device))
    if not ranks.is_first():
        return
    scores = summary(log_probabilities, data.labels("validation").numpy())
    few = {"baseline": {"top1_error": scores["top1_error"]}}
    write_json(VALIDATION_BASELINE, {"validation": few})


if __name__ == "__main__":
    run_stage(main, ranked=True)
