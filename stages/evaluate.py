"""Score every model on the test images: the only stage that does."""

from __future__ import annotations

from collections import deque

from meal.core import paths, ranks
from meal.core.device import environment, open_device
from meal.core.digests import sha256
from meal.core.files import write_json
from meal.core.runtime import load_runtime
from meal.core.stage import run_stage
from meal.core.work import WorkFolder
from meal.data.prepared import open_data
from meal.evaluation.comparison import significance_table
from meal.evaluation.costs import cost_metrics, count
from meal.evaluation.curves import write_tables
from meal.evaluation.outputs import NETWORKS, SPLITS, model_outputs
from meal.evaluation.scoring import headline, score_models
from meal.evaluation.worth import teachers_worth
from meal.models.checkpoint import WEIGHTS, load, training_steps
from meal.models.spec import NetworkSpec
from meal.targets.ensemble import Ensemble


def main() -> None:
    """Write the metrics, the tables that DVC plots, and every model's predictions."""
    data, ensemble, device = open_data(), Ensemble(paths.ENSEMBLE), open_device(load_runtime())
    card = {"classes": data.manifest["classes"], "images": data.digest("test")}
    labels, validation_labels = (data.labels(split).numpy() for split in SPLITS)
    networks = {name: sha256(folder / WEIGHTS) for name, folder in NETWORKS.items()}
    identity = {"data": data.fingerprint, "networks": networks}
    work = WorkFolder(paths.CHECKPOINTS, "evaluate", identity)
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


if __name__ == "__main__":
    run_stage(main, ranked=True)
