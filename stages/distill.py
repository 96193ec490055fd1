"""Distill the teachers into the student."""

from __future__ import annotations

from meal.core import ranks
from meal.core.device import open_device
from meal.core.files import write_json
from meal.core.paths import (
    CHECKPOINTS,
    CONFIG,
    ENSEMBLE,
    STUDENT,
    TRAINING,
    VALIDATION,
    VALIDATION_SCORES,
)
from meal.core.runtime import load_runtime
from meal.core.settings import load_slice
from meal.core.stage import run_stage
from meal.core.work import WorkFolder
from meal.data.prepared import open_data
from meal.distill.run import distill
from meal.distill.settings import DistillSlice
from meal.metrics import log_softmax
from meal.models.checkpoint import load
from meal.models.prediction import split_logits
from meal.scores import score
from meal.targets.ensemble import Ensemble
from meal.training.checkpoints import Checkpoints


def main() -> None:
    """Train the student, then write its weights, training curve and scores on validation."""
    config = load_slice(DistillSlice, CONFIG / "distill.json")
    data, ensemble, runtime = open_data(), Ensemble(ENSEMBLE), load_runtime()
    device = open_device(runtime)
    identity = {
        "config": config.model_dump(mode="json"),
        "data": data.fingerprint,
        "ensemble": ensemble.card["fingerprint"],
    }
    work = WorkFolder(CHECKPOINTS, "distill", identity)
    checkpoints = Checkpoints(work, runtime.checkpoint_minutes)
    curve = TRAINING / "student.csv"
    trained = distill(config, data, ensemble, device, checkpoints, curve, runtime.logger)
    trained.save(STUDENT, curve)
    network = load(STUDENT).network.to(device)
    outputs = ensemble.log_probabilities("validation")
    student = log_softmax(split_logits(network, data, "validation", device))
    if not ranks.is_first():
        return
    labels = data.labels("validation").numpy()
    models = {"student": student, **outputs.ensembles}
    scores = score(models, outputs.teachers, labels)
    write_json(VALIDATION_SCORES, scores)
    few = {
        "student": {key: scores["student"][key] for key in ("top1_error", "nll")},
        "ensemble": {"top1_error": scores["ensemble"]["top1_error"]},
    }
    write_json(VALIDATION, {"validation": few})
    work.remove()


if __name__ == "__main__":
    run_stage(main, ranked=True)
