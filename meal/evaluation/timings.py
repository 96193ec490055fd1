"""How long a prediction takes; measured outside the pipeline, whose outputs must not vary."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

from meal.models.factory import build
from meal.models.spec import NetworkSpec

_BATCH = 128


def measure(
    student: NetworkSpec,
    teachers: Mapping[str, NetworkSpec],
    device: torch.device,
    repeats: int,
) -> dict[str, dict[str, float]]:
    """Median latency for one image and throughput in batches of 128, with random weights.

    Every round calls all models in turn, so that other load on the machine affects them alike. The
    ensemble runs its members one after the other.

    Returns:
        For `student`, `ensemble` and each teacher by name: `latency_ms`, `images_per_second`, and
        `latency_ratio`, the latency divided by the student's.
    """
    members = {name: _ready(spec, device) for name, spec in teachers.items()}
    models = {"student": [_ready(student, device)], "ensemble": list(members.values())}
    models |= {name: [network] for name, network in members.items()}
    seconds: dict[int, dict[str, float]] = {}
    for size in (1, _BATCH):
        images = torch.randn(size, *student.shape, device=device)
        images = images.to(memory_format=torch.channels_last)
        sides = {
            name: lambda networks=networks, images=images: [n(images) for n in networks]
            for name, networks in models.items()
        }
        seconds[size] = _medians(sides, repeats, device)
    return {
        name: {
            "latency_ms": round(1000 * seconds[1][name], 3),
            "images_per_second": round(_BATCH / seconds[_BATCH][name], 1),
            "latency_ratio": round(seconds[1][name] / seconds[1]["student"], 3),
        }
        for name in models
    }


def _ready(spec: NetworkSpec, device: torch.device) -> nn.Module:
    return build(spec).to(device).eval()


@torch.inference_mode()
def _medians(
    sides: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each side, after one warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(repeats + 1):
        for name, call in sides.items():
            started = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if round_:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}
