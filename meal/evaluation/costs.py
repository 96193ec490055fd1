"""The cost of a network, counted on the meta device without computing or timing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from meal.models.factory import build
from meal.models.spec import NetworkSpec


@dataclass(frozen=True)
class Cost:
    """Parameters, multiply-adds per image, and the size of the state in bytes."""

    parameters: int
    macs: int
    bytes: int


def count(spec: NetworkSpec) -> Cost:
    """Count parameters, multiply-adds of convolutions and matrix products, and bytes of the state.

    A weights file adds a header of a few kilobytes.
    """
    with torch.device("meta"):
        network = build(spec).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, *spec.shape))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    size = sum(value.nbytes for value in network.state_dict().values())
    return Cost(parameters, counter.get_total_flops() // 2, size)


def cost_metrics(student: Cost, teachers: Mapping[str, Cost]) -> dict[str, Any]:
    """Parameters, multiply-adds and bytes; an ensemble costs the sum of its members."""
    return {
        "student_macs": student.macs,
        "student_parameters": student.parameters,
        "student_bytes": student.bytes,
        "ensemble_macs": sum(cost.macs for cost in teachers.values()),
        "ensemble_parameters": sum(cost.parameters for cost in teachers.values()),
        "ensemble_bytes": sum(cost.bytes for cost in teachers.values()),
        "teachers": {name: asdict(cost) for name, cost in teachers.items()},
    }
