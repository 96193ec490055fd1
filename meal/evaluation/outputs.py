"""The log-probabilities of every model, which an interrupted evaluation does not compute again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from meal.core import paths, ranks
from meal.core.arrays import read_arrays, write_arrays
from meal.core.collectives import broadcast
from meal.data.prepared import Prepared, Split
from meal.evaluation.predictions import BASELINE, STUDENT, TEACHER
from meal.evaluation.scoring import ModelOutputs
from meal.metrics import Floats, log_softmax
from meal.models.checkpoint import load
from meal.models.prediction import split_logits
from meal.targets.ensemble import Ensemble

SPLITS: tuple[Split, ...] = ("test", "validation")
NETWORKS = {BASELINE: paths.BASELINE, STUDENT: paths.STUDENT}


def model_outputs(
    data: Prepared, ensemble: Ensemble, device: torch.device, folder: Path
) -> Iterator[ModelOutputs]:
    """The log-probabilities of each model, computed on request.

    Args:
        data: the images.
        ensemble: what the teachers have answered.
        device: where baseline and student run.
        folder: keeps what they have answered.
    """
    both = (ensemble.each_log_probabilities(split) for split in SPLITS)
    for (name, test), (_, validation) in zip(*both, strict=True):
        yield ModelOutputs(TEACHER + name if name in ensemble.members else name, test, validation)
    for name, weights in NETWORKS.items():
        network = load(weights).network.to(device)
        test, validation = (
            kept(folder / f"{name}-{split}.npz", partial(_answers, network, data, split, device))
            for split in SPLITS
        )
        yield ModelOutputs(name, test, validation)


def kept(file: Path, compute: Callable[[], Floats]) -> Floats:
    """What `file` holds; if it is missing or damaged, what `compute` returns, which is kept.

    All ranks call this together: either all of them compute or none, and only the first one gets
    what `file` holds.
    """
    found = read_arrays(file) if ranks.is_first() else None
    if broadcast(found is not None):
        return np.empty(0, np.float32) if found is None else found["values"]
    values = compute()
    if ranks.is_first():
        write_arrays(file, {"values": values})
    return values


def _answers(network: nn.Module, data: Prepared, split: Split, device: torch.device) -> Floats:
    return log_softmax(split_logits(network, data, split, device))
