"""Distil the teachers into the student."""

from __future__ import annotations

from meal.config.loading import load_slice
from meal.config.slices import DistillSlice
from meal.device import select_device
from meal.distillation.distil import distil
from meal.files import write_csv, write_json
from meal.metrics import log_softmax, score
from meal.nets import weights
from meal.nets.inference import split_logits
from meal.teaching.ensemble import Ensemble
from meal.training.checkpoint import Checkpoints
from meal.work import WorkFolder
from stages.common import (
    CHECKPOINTS,
    CONFIG,
    ENSEMBLE,
    REPORTS,
    STUDENT,
    TRAINING,
    run_stage,
    runtime,
)
from stages.data import open_data


def main() -> None:
    """Train, then write the weights, the training curve and the scores on validation."""
    config = load_slice(DistillSlice, CONFIG / "distill.json")
    data, ensemble, device = open_data(), Ensemble(ENSEMBLE), select_device(runtime())
    identity = {
        "config": config.model_dump(mode="json"),
        "data": data.fingerprint,
        "ensemble": ensemble.card["fingerprint"],
    }
    work = WorkFolder(CHECKPOINTS, "distill", identity)
    checkpoints = Checkpoints(work, runtime().checkpoint_minutes)
    spec, state, history = distil(config, data, ensemble, device, checkpoints)
    weights.save(STUDENT, spec, state)
    write_csv(TRAINING / "student.csv", history)
    network = weights.load(STUDENT)[1].to(device)
    together, teachers = ensemble.log_probabilities("validation")
    own = log_softmax(split_logits(network, data, "validation", device))
    labels = data.labels("validation").numpy()
    scores = score({"student": own, **together}, teachers, labels)
    write_json(REPORTS / "validation.json", scores)
    work.remove()


if __name__ == "__main__":
    run_stage(main)
