"""Score every model on the test images: the only stage that does."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from meal.core import paths, ranks
from meal.core.device import environment, open_device
from meal.core.digests import sha256
from meal.core.files import write_json
from meal.core.runtime import load_runtime
from meal.core.stage import run_stage
from meal.core.work import WorkFolder
from meal.data.prepared import Prepared, Split, open_data
from meal.evaluation.comparison import significance_table
from meal.evaluation.costs import cost_metrics, count
from meal.evaluation.curves import write_tables
from meal.evaluation.kept import kept
from meal.evaluation.predictions import BASELINE, STUDENT, TEACHER
from meal.evaluation.scoring import ModelOutputs, headline, score_models
from meal.evaluation.worth import teachers_worth
from meal.metrics import log_softmax
from meal.models.checkpoint import WEIGHTS, load, training_steps
from meal.models.prediction import split_logits
from meal.models.spec import NetworkSpec
from meal.targets.ensemble import Ensemble

SPLITS: tuple[Split, ...] = ("test", "validation")
NETWORKS = {BASELINE: paths.BASELINE, STUDENT: paths.STUDENT}


def main() -> None:
    """Write the metrics, the tables that DVC plots, and every model's predictions."""
    data, ensemble, device = open_data(), Ensemble(paths.ENSEMBLE), open_device(load_runtime())
    card = {"classes": data.manifest["classes"], "images": data.digest("test")}
    labels, validation_labels = (data.labels(split).numpy() for split in SPLITS)
    work = WorkFolder(
        paths.CHECKPOINTS,
        "evaluate",
        {
            "data": data.fingerprint,
            "networks": {name: sha256(folder / WEIGHTS) for name, folder in NETWORKS.items()},
        },
    )
    outputs = model_outputs(data, ensemble, device, work.path)
    if not ranks.is_first():
        deque(outputs, maxlen=0)  # computes this rank's part of them
        return
    scores = score_models(outputs, labels, validation_labels, card)
    teachers = {
        name: count(NetworkSpec.read(ensemble.network_card(name))) for name in ensemble.teachers
    }
    metrics = {
        **scores.metrics,
        "cost": cost_metrics(count(load(paths.STUDENT).spec), teachers),
        "training": training(),
        "worth": teachers_worth(ensemble, validation_labels),
        "run": environment(device),
    }
    scores.predictions.save(paths.PREDICTIONS, significance_table(scores.comparisons))
    write_tables(scores.predictions, paths.REPORTS)
    write_json(paths.SCORES, metrics)
    write_json(paths.METRICS, headline(metrics))
    work.remove()


def training() -> dict[str, int]:
    """The steps of training behind baseline and student, as far as they are known."""
    found = {name: training_steps(folder / WEIGHTS) for name, folder in NETWORKS.items()}
    return {f"{name}_steps": steps for name, steps in found.items() if steps is not None}


def model_outputs(
    data: Prepared, ensemble: Ensemble, device: torch.device, folder: Path
) -> Iterator[ModelOutputs]:
    """The log-probabilities of each model, computed on request, or kept in `folder`."""
    both = (ensemble.each_log_probabilities(split) for split in SPLITS)
    for (name, test), (_, validation) in zip(*both, strict=True):
        yield ModelOutputs(TEACHER + name if name in ensemble.members else name, test, validation)
    for name, weights in NETWORKS.items():
        network = load(weights).network.to(device)
        test, validation = (
            kept(folder / f"{name}-{split}.npz", partial(_scored, network, data, split, device))
            for split in SPLITS
        )
        yield ModelOutputs(name, test, validation)


def _scored(
    network: nn.Module, data: Prepared, split: Split, device: torch.device
) -> NDArray[np.float32]:
    return log_softmax(split_logits(network, data, split, device))


if __name__ == "__main__":
    run_stage(main, ranked=True)
