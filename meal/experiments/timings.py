"""How long the models of the last run take: measured with the networks that it left."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from meal.core.device import open_device
from meal.core.errors import UserError
from meal.core.paths import ENSEMBLE, EXPORT, STUDENT
from meal.core.runtime import load_runtime
from meal.evaluation.costs import cost_metrics, count
from meal.evaluation.timings import measure
from meal.models.checkpoint import load
from meal.models.spec import NetworkSpec
from meal.predict.card import ONNX, Card, Input
from meal.predict.session import open_session
from meal.report.evidence import commit, machine
from meal.targets.ensemble import Ensemble


def measure_run(repeats: int) -> dict[str, Any]:
    """The timings of the last run's models, with the machine and what they cost.

    Args:
        repeats: rounds in a block; blocks are repeated until they agree.
    """
    runtime, ensemble = load_runtime(), Ensemble(ENSEMBLE)
    device = open_device(runtime)
    student = load(STUDENT).spec
    teachers = {n: NetworkSpec.read(ensemble.network_card(n)) for n in ensemble.teachers}
    found = measure(student, teachers, device, repeats, _exported(EXPORT, student))
    cost = cost_metrics(count(student), {name: count(spec) for name, spec in teachers.items()})
    threads = torch.get_num_threads()
    return {
        "machine": {**machine(), "device": str(device), "threads": threads, "commit": commit()},
        "rounds": found.rounds,
        "steady": found.steady,
        # The page shows these timings beside results only if their networks cost the same.
        "cost": {key: value for key, value in cost.items() if key != "teachers"},
        "models": found.models,
    }


def _exported(folder: Path, student: NetworkSpec) -> tuple[Any, Input] | None:
    """The session of the exported student; None if there is none for this network."""
    try:
        card = Card.read(folder)
        if NetworkSpec.read(card.content["network"]) != NetworkSpec.read(asdict(student)):
            return None
        return open_session(card.file(ONNX), torch.get_num_threads()), card.input
    except UserError:
        return None
