"""Where the time of a distillation step goes: its overhead over plain training, by operator."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from tests.benchmarks.common import report
from tests.benchmarks.step_cost import (
    OFFICIAL,
    distillation_step,
    make_teachers,
    pipeline,
    spec,
    supervised_step,
)

STEPS = 10


def _operators(step: Callable[[], None]) -> dict[str, float]:
    """Milliseconds per step that the processor spends in each operator itself."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            step()
    return {
        entry.key: entry.self_cpu_time_total / 1000 / STEPS for entry in profiler.key_averages()
    }


def run() -> None:
    """Profile the student with 12 M multiply-adds and three teachers, one at random per step."""
    student, views = spec("mobilenet", 0.5), pipeline()
    with tempfile.TemporaryDirectory() as folder:
        ensemble = make_teachers(Path(folder), OFFICIAL, 3, online=False)
        plain = _operators(supervised_step(student, views))
        ours = _operators(distillation_step(student, views, ensemble))
    more = {name: value - plain.get(name, 0) for name, value in ours.items()}
    total = sum(plain.values())
    rows = [
        {
            "operator": name,
            "milliseconds_more": round(value, 2),
            "of_a_plain_step": round(value / total, 4),
        }
        for name, value in sorted(more.items(), key=lambda item: -item[1])[:12]
    ]
    rows.append(
        {
            "operator": "all",
            "milliseconds_more": round(sum(ours.values()) - total, 2),
            "of_a_plain_step": round(sum(ours.values()) / total - 1, 4),
        }
    )
    report("profile", rows, "torch profiler: what a distillation step adds to a plain step")
