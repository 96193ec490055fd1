"""How long a prediction takes; measured outside the pipeline, whose outputs must not vary."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from meal.evaluation.predictions import TEACHER
from meal.models.factory import build
from meal.models.spec import NetworkSpec
from meal.predict.card import Input
from meal.predict.session import run

ONNX = "student, ONNX Runtime"
BATCH = 128
_ALIKE = 0.05  # relative difference of a model's fastest calls in two blocks that are steady
_MOST_BLOCKS = 20


@dataclass(frozen=True)
class Timings:
    """The fastest calls of all models.

    Attributes:
        models: for `student`, `student, ONNX Runtime`, `ensemble` and each `teachers/NAME`:
            `latency_ms`, `images_per_second`, and `latency_ratio`, the latency divided by that of
            the student in PyTorch.
        rounds: how often each model was called.
        steady: whether further rounds were no faster.
    """

    models: dict[str, dict[str, float]]
    rounds: int
    steady: bool


def measure(
    student: NetworkSpec,
    teachers: Mapping[str, NetworkSpec],
    device: torch.device,
    repeats: int,
    exported: tuple[Any, Input] | None = None,
) -> Timings:
    """Latency for one image and throughput in batches of 128, with random weights.

    Every round calls all models in turn. The ensemble runs its members one after the other. Each
    figure is that of the fastest call: other load on the machine only ever makes calls slower.
    Blocks of rounds are repeated until the fastest calls of two in a row agree.

    Args:
        student, teachers: the networks.
        device: where PyTorch runs them.
        repeats: rounds in a block.
        exported: the session of the student's ONNX file, and its input; None if there is none.
    """
    members = {name: _ready(spec, device) for name, spec in teachers.items()}
    models = {"student": [_ready(student, device)], "ensemble": list(members.values())}
    models |= {TEACHER + name: [network] for name, network in members.items()}
    seconds: dict[int, dict[str, float]] = {}
    rounds, steady = 0, True
    for size in (1, BATCH):
        images = torch.randn(size, *student.shape, device=device)
        images = images.to(memory_format=torch.channels_last)
        sides: dict[str, Callable[[], object]] = {
            name: partial(_call, networks, images) for name, networks in models.items()
        }
        if exported is not None:
            session, inputs = exported
            pixels = np.zeros((size, inputs.size, inputs.size, inputs.channels), np.uint8)
            sides[ONNX] = partial(run, session, pixels, inputs)
        seconds[size], taken, alike = _steady(sides, repeats, device)
        rounds, steady = max(rounds, taken), steady and alike
    named = sorted(seconds[1], key=["student", ONNX, "ensemble", *models].index)
    return Timings(
        {
            name: {
                "latency_ms": round(1000 * seconds[1][name], 3),
                "images_per_second": round(BATCH / seconds[BATCH][name], 1),
                "latency_ratio": round(seconds[1][name] / seconds[1]["student"], 3),
            }
            for name in named
        },
        rounds,
        steady,
    )


def _ready(spec: NetworkSpec, device: torch.device) -> nn.Module:
    return build(spec).to(device).eval()


def _call(networks: Sequence[nn.Module], images: torch.Tensor) -> None:
    for network in networks:
        network(images)


def _steady(
    sides: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> tuple[dict[str, float], int, bool]:
    """Fewest seconds of each side, the number of rounds, and whether the last block was as fast."""
    print(f"timing {len(sides)} models, at most {_MOST_BLOCKS * repeats} rounds", file=sys.stderr)
    before = _fastest(sides, repeats, device)
    least = before
    for block in range(2, _MOST_BLOCKS + 1):
        after = _fastest(sides, repeats, device)
        least = {name: min(least[name], after[name]) for name in sides}
        if all(abs(after[name] / before[name] - 1) <= _ALIKE for name in sides):
            return least, block * repeats, True
        before = after
    return least, _MOST_BLOCKS * repeats, False


@torch.inference_mode()
def _fastest(
    sides: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, float]:
    """Fewest seconds of each side; each call follows one that is not timed.

    The other sides have filled the caches with their own weights, and let threads fall asleep.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, call in sides.items():
            for timed in (False, True):
                started = time.perf_counter()
                call()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if timed:
                    times[name].append(time.perf_counter() - started)
    return {name: min(values) for name, values in times.items()}
