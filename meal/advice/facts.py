"""What is known of a run before its student is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meal.core.errors import UserError
from meal.core.files import read_json
from meal.core.paths import BASELINE, CONFIG, DATA, DATA_CARD, ENSEMBLE, VALIDATION_BASELINE
from meal.data.prepared import open_prepared
from meal.evaluation.costs import cost_metrics, count
from meal.evaluation.worth import teachers_worth
from meal.metrics import top1_error
from meal.models.checkpoint import load
from meal.models.spec import NetworkSpec
from meal.targets.ensemble import UNIFORM, Ensemble

FIX = "dvc repro ensemble baseline"


@dataclass(frozen=True)
class Facts:
    """What may decide whether a student pays.

    Errors are in percent. All but `baseline_train_error` are for the validation images.

    Attributes:
        classes: their number.
        labels: of training images.
        unlabelled: training images without a label that the student sees.
        hidden: those that it does not see, because of `distill.pool`.
        validation: validation images.
        baseline_train_error: the baseline's, for the images that it learnt.
        baseline_error, best_teacher_error, ensemble_error: of these models.
        teachers: their number.
        disagreement: how often a teacher and the mean of the others predict different classes, in
            percent, averaged over the teachers; 0 for a single one.
        student_parameters, teacher_parameters: of the student, and of a teacher on average.
        student_macs, ensemble_macs: multiply-adds of the student, and of all teachers.
    """

    classes: int
    labels: int
    unlabelled: int
    hidden: int
    validation: int
    baseline_train_error: float
    baseline_error: float
    best_teacher_error: float
    ensemble_error: float
    teachers: int
    disagreement: float
    student_parameters: int
    teacher_parameters: int
    student_macs: int
    ensemble_macs: int


def facts_of(
    card: Mapping[str, Any],
    baseline: Mapping[str, Any],
    ensemble_error: float,
    worth: Sequence[Mapping[str, Any]],
    cost: Mapping[str, Any],
    pool: str,
) -> Facts:
    """Collect the facts from what the stages have written.

    Args:
        card: reports/dataset.json.
        baseline: reports/validation_baseline.json.
        ensemble_error: on validation (%).
        worth: what each teacher is worth, as from `teachers_worth`.
        cost: as from `cost_metrics`.
        pool: `distill.pool`.

    Raises:
        KeyError: if an older version has written them.
    """
    teachers = cost["teachers"].values()
    sees = pool != "labelled"
    return Facts(
        classes=len(card["classes"]),
        labels=card["labels"]["train"],
        unlabelled=card["unlabelled"] if sees else 0,
        hidden=0 if sees else card["unlabelled"],
        validation=card["labels"]["validation"],
        baseline_train_error=baseline["train"]["baseline"]["top1_error"],
        baseline_error=baseline["validation"]["baseline"]["top1_error"],
        best_teacher_error=min(row["error"] for row in worth),
        ensemble_error=ensemble_error,
        teachers=len(worth),
        disagreement=round(float(np.mean([row.get("disagreement", 0.0) for row in worth])), 2),
        student_parameters=cost["student_parameters"],
        teacher_parameters=round(np.mean([each["parameters"] for each in teachers])),
        student_macs=cost["student_macs"],
        ensemble_macs=cost["ensemble_macs"],
    )


def project_facts() -> Facts:
    """The facts of the project in this folder.

    Raises:
        UserError: if a stage that they need has not run, or ran in an older version.
    """
    baseline = read_json(VALIDATION_BASELINE, FIX)
    card, ensemble = read_json(DATA_CARD, FIX), Ensemble(ENSEMBLE)
    labels = open_prepared(DATA).labels("validation").numpy()
    outputs = ensemble.each_log_probabilities("validation")
    error = next(top1_error(each, labels) for name, each in outputs if name == UNIFORM)
    teachers = {
        name: count(NetworkSpec.read(ensemble.network_card(name))) for name in ensemble.teachers
    }
    cost = cost_metrics(count(load(BASELINE).spec), teachers)
    pool = read_json(CONFIG / "distill.json", FIX)["distill"]["pool"]
    try:
        return facts_of(
            card, baseline, round(error, 2), teachers_worth(ensemble, labels), cost, pool
        )
    except KeyError as key:
        raise UserError(
            f"an older version has written the reports: {key} is missing; {FIX}"
        ) from None
