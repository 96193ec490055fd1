"""The cost of a network, counted without timing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from meal.models.spec import NetworkSpec
from meal.models.trial import examine, nbytes


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

    def look(network: nn.Module) -> Cost:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(torch.zeros(1, *spec.shape))
        parameters = sum(parameter.numel() for parameter in network.parameters())
        return Cost(parameters, counter.get_total_flops() // 2, nbytes(network))

    return examine(spec, look)


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
