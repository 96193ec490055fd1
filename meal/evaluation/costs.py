"""What a network costs, counted on the meta device: nothing is computed, nothing is timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from meal.nets.spec import NetworkSpec
from meal.nets.weights import build


@dataclass(frozen=True)
class Cost:
    """Trained parameters, and multiply-adds of one image."""

    parameters: int
    macs: int


def count(spec: NetworkSpec) -> Cost:
    """Count the parameters and the multiply-adds of convolutions and matrix products."""
    with torch.device("meta"):
        network = build(spec).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, *spec.shape))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, counter.get_total_flops() // 2)


def cost_rows(student: Cost, teachers: Mapping[str, Cost]) -> dict[str, Any]:
    """Parameters and multiply-adds; an ensemble costs what its members cost together."""
    return {
        "student_macs": student.macs,
        "student_parameters": student.parameters,
        "ensemble_macs": sum(cost.macs for cost in teachers.values()),
        "ensemble_parameters": sum(cost.parameters for cost in teachers.values()),
        "teachers": {name: asdict(cost) for name, cost in teachers.items()},
    }
