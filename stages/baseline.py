"""Train the student's network on labels, optimised like the student."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from meal.core import ranks
from meal.core.device import open_device
from meal.core.files import write_json
from meal.core.paths import BASELINE, CONFIG, TRAINING, VALIDATION_BASELINE
from meal.core.runtime import load_runtime
from meal.core.seeds import Purpose
from meal.core.stage import run_stage
from meal.data.prepared import Prepared, Split, open_data
from meal.metrics import log_softmax, top1_error
from meal.models.checkpoint import load
from meal.models.prediction import split_logits
from meal.supervised.run import run

MOST_SCORED = 10_000  # training images


def main() -> None:
    """Train the baseline and score it: on validation beside the student, on training images too.

    The gap between the two errors is what soft targets can close.
    """
    run(
        stage="baseline",
        purpose=Purpose.BASELINE,
        config=CONFIG / "baseline.json",
        folder=BASELINE,
        curve=TRAINING / "baseline.csv",
    )
    data, device = open_data(), open_device(load_runtime())
    network = load(BASELINE).network.to(device)
    labelled = data.training_rows("labelled")
    labelled = labelled[:: math.ceil(len(labelled) / MOST_SCORED)]  # evenly: rows may be in classes
    validation = error(network, data, "validation", torch.arange(data.count("validation")), device)
    train = error(network, data, "train", labelled, device)
    if ranks.is_first():
        errors = {"validation": validation, "train": train}
        metrics = {split: {"baseline": {"top1_error": value}} for split, value in errors.items()}
        write_json(VALIDATION_BASELINE, metrics)


def error(
    network: nn.Module, data: Prepared, split: Split, rows: Tensor, device: torch.device
) -> float:
    """The error (%) for the plain images `rows` `(N,)` of a split."""
    outputs = log_softmax(split_logits(network, data, split, device, rows))
    return round(top1_error(outputs, data.labels(split)[rows].numpy()), 2)


if __name__ == "__main__":
    run_stage(main, ranked=True)
