"""Score every model on the test images: the only stage that does."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from meal.data.prepared import Prepared, Split
from meal.device import select_device
from meal.evaluation.costs import cost_rows, count
from meal.evaluation.curves import write_tables
from meal.evaluation.predictions import BASELINE, STUDENT, TEACHER
from meal.evaluation.scoring import Answered, score_models
from meal.files import write_json
from meal.metrics import log_softmax
from meal.nets import weights
from meal.nets.inference import split_logits
from meal.teaching.ensemble import Ensemble
from stages import common
from stages.data import open_data

SPLITS: tuple[Split, ...] = ("test", "validation")
FOLDERS = {BASELINE: common.BASELINE, STUDENT: common.STUDENT}


def main() -> None:
    """Write the metrics, the tables that are drawn, and every model's answer to every image."""
    data, ensemble = open_data(), Ensemble(common.ENSEMBLE)
    device = select_device(common.runtime())
    card = {"classes": data.manifest["classes"], "images": data.digest("test")}
    labels, validation_labels = (data.labels(split).numpy() for split in SPLITS)
    answered = answers(data, ensemble, device)
    scores, predictions = score_models(answered, labels, validation_labels, card)
    costs = {name: count(ensemble.spec(name)) for name in ensemble.teachers}
    student = weights.load(common.STUDENT)[0]  # the baseline's network is the student's
    scores["cost"] = cost_rows(count(student), costs)
    write_json(common.REPORTS / "metrics.json", scores)
    write_tables(predictions, common.REPORTS)
    predictions.save(common.PREDICTIONS)


def answers(data: Prepared, ensemble: Ensemble, device: torch.device) -> Iterator[Answered]:
    """Each model's answers to test and validation images, when it is asked for."""
    both = (ensemble.each_log_probabilities(split) for split in SPLITS)
    for (name, test), (_, validation) in zip(*both, strict=True):
        yield (TEACHER + name if name in ensemble.members else name), test, validation
    for name, folder in FOLDERS.items():
        network = weights.load(folder)[1].to(device)
        test, validation = (
            log_softmax(split_logits(network, data, split, device)) for split in SPLITS
        )
        yield name, test, validation


if __name__ == "__main__":
    common.run_stage(main)
