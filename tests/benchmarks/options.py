"""The effect on speed of channels_last, fused SGD, bfloat16, determinism and torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from meal.models.factory import build
from meal.models.spec import NetworkSpec
from tests.benchmarks.common import medians, report
from tests.benchmarks.step_cost import BATCH, spec


def step(
    network_spec: NetworkSpec, channels_last: bool = True, fused: bool = False,
    bfloat16: bool = False, compiled: bool = False, deterministic: bool = True,
) -> Callable[[], None]:  # fmt: skip
    """A supervised training step with some options."""
    network = build(network_spec).train()
    images = torch.randn(BATCH, 3, 32, 32)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network, images = network.to(memory_format=layout), images.to(memory_format=layout)
    labels = torch.randint(0, 10, (BATCH,))
    optimizer = torch.optim.SGD(
        network.parameters(), 0.01, 0.9, nesterov=True, fused=fused, foreach=not fused
    )
    forward: Any = torch.compile(network) if compiled else network

    def run() -> None:
        torch.use_deterministic_algorithms(deterministic)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        torch.use_deterministic_algorithms(False)

    return run


def run(repeats: int = 9) -> None:
    """Compare each option with this project's defaults on a CPU."""
    rows = []
    for arch, width in (("resnet18", 0.25), ("mobilenet", 0.5)):
        network_spec = spec(arch, width)
        sides = {
            "default (channels_last, foreach SGD, float32, deterministic)": step(network_spec),
            "contiguous": step(network_spec, channels_last=False),
            "fused SGD": step(network_spec, fused=True),
            "bfloat16": step(network_spec, bfloat16=True),
            "not deterministic": step(network_spec, deterministic=False),
            "torch.compile": step(network_spec, compiled=True),
        }
        seconds = medians(sides, repeats)
        first = next(iter(seconds.values()))
        rows += [
            {
                "network": f"{arch}, width {width}",
                "option": name,
                "milliseconds": round(1000 * value, 1),
                "ratio": round(value / first, 3),
            }
            for name, value in seconds.items()
        ]
    report("options", rows, "a supervised step, batch 128, 32x32, over the default")
