"""Score every model on the test images: the only stage that does."""

from __future__ import annotations

import numpy as np

from meal.data.pipelines import PlainPipeline
from meal.device import select_device
from meal.evaluation.costs import cost_rows, count
from meal.files import atomic_folder, write_json
from meal.metrics import log_softmax, score
from meal.nets import weights
from meal.nets.inference import plain_logits
from meal.teaching.ensemble import Ensemble
from stages.common import (
    BASELINE,
    ENSEMBLE,
    PREDICTIONS,
    REPORTS,
    STUDENT,
    run_stage,
    runtime,
)
from stages.data import open_data


def main() -> None:
    """Write the metrics, and every model's log-probabilities on every test image."""
    data, ensemble, device = open_data(), Ensemble(ENSEMBLE), select_device(runtime())
    images, labels = PlainPipeline.of(data, "test", device), data.labels("test").numpy()
    answers, teachers = ensemble.log_probabilities("test")
    for name, folder in (("baseline", BASELINE), ("student", STUDENT)):
        spec, network = weights.load(folder)
        answers[name] = log_softmax(plain_logits(network.to(device), images))
    scores = score(answers, teachers, labels)
    costs = {name: count(ensemble.spec(name)) for name in ensemble.teachers}
    scores["cost"] = cost_rows(count(spec), costs)  # the baseline's network is the student's
    write_json(REPORTS / "metrics.json", scores)
    with atomic_folder(PREDICTIONS) as temporary:
        np.save(temporary / "labels.npy", labels)
        for name, values in answers.items():
            np.save(temporary / f"{name}.npy", values.astype(np.float32))
        (temporary / "teachers").mkdir()
        for name, values in teachers.items():
            np.save(temporary / "teachers" / f"{name}.npy", values.astype(np.float32))


if __name__ == "__main__":
    run_stage(main)
