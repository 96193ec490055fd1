"""What the stages `teacher` and `baseline` share: train a network on labels."""

from __future__ import annotations

from pathlib import Path

import torch

from meal.config.loading import load_slice
from meal.config.slices import SupervisedSlice
from meal.data.batches import Purpose
from meal.data.prepared import Prepared
from meal.device import select_device
from meal.files import user_folder, write_csv
from meal.nets import weights
from meal.training.checkpoint import Checkpoints
from meal.training.loaded import load_teacher
from meal.training.supervised import train_supervised
from meal.work import WorkFolder
from stages.common import CHECKPOINTS, runtime
from stages.data import open_data


def train_on_labels(
    stage: str, purpose: Purpose, slice_: Path, folder: Path, curve: Path
) -> tuple[Prepared, torch.device]:
    """Train, or load what has weights; write them to `folder`, and the training curve to `curve`.

    Returns:
        The data and the device that it was trained with.
    """
    config, data = load_slice(SupervisedSlice, slice_), open_data()
    device = select_device(runtime())
    identity = {"config": config.model_dump(mode="json"), "data": data.fingerprint}
    work = WorkFolder(CHECKPOINTS, stage, identity)
    if config.training is None:
        spec, state, history = load_teacher(config, data, device, user_folder() / "weights")
    else:
        checkpoints = Checkpoints(work, runtime().checkpoint_minutes)
        spec, state, history = train_supervised(stage, purpose, config, data, device, checkpoints)
    weights.save(folder, spec, state)
    write_csv(curve, history)
    work.remove()
    return data, device
