"""Sharing the cores: threads on an idle and on a busy machine, and stages side by side."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.common import report
from tests.benchmarks.stages import seconds
from tests.conftest import ROOT
from tests.stages.conftest import make_project

# The training steps per second of a small network, over a few seconds.
STEPS = """
import sys, time, torch
from meal.models.factory import build
from meal.models.spec import NetworkSpec
network, images = build(NetworkSpec("resnet18", 0.125, 1, 16, 10), 0), torch.randn(64, 1, 16, 16)
optimizer = torch.optim.SGD(network.parameters(), 0.01)
count, started = -2, time.monotonic()
while time.monotonic() - started < 7:
    if count == 0:
        started = time.monotonic()
    optimizer.zero_grad()
    network(images).square().mean().backward()
    optimizer.step()
    count += 1
print(count / (time.monotonic() - started))
"""
SETTINGS: dict[str, dict[str, str]] = {
    "a thread per core": {},
    "a thread per core, OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "a thread per core, GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def run_threads(repeats: int = 3) -> None:
    """Measure training steps a second with several settings, idle and beside busy processes."""
    cores = os.cpu_count() or 1
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    found: dict[tuple[str, str], list[float]] = {}
    for load, count in (("idle", 0), ("busy", cores)):
        others = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)
        ]
        for _ in range(repeats):
            for name, setting in SETTINGS.items():
                ran = subprocess.run(
                    [sys.executable, "-c", STEPS],
                    env=environment | setting, capture_output=True, text=True, check=True,
                )  # fmt: skip
                found.setdefault((name, load), []).append(float(ran.stdout))
        for other in others:
            other.kill()
    rows: list[dict[str, Any]] = [
        {
            "setting": name,
            **{
                f"{load} {word}": round(pick(found[name, load]), 1)
                for load in ("idle", "busy")
                for word, pick in (("lowest", min), ("highest", max))
            },
        }
        for name in SETTINGS
    ]
    note = f"training steps a second: ResNet-18 at an eighth, batches of 64; busy: {cores} others"
    report("threads", rows, note)


def run_side_by_side() -> None:
    """Measure the default run with `dvc repro`, and with two stages at a time."""
    taken = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, command in {
            "dvc repro": ("dvc", "repro"),
            "python -m meal run -j 2": ("python", "-m", "meal", "run", "-j", "2"),
        }.items():
            project = make_project(Path(folder) / name.replace(" ", "_"))
            shutil.copy(ROOT / "params.yaml", project.folder)
            project.environment.pop("OMP_NUM_THREADS", None)
            taken[name] = round(seconds(project, *command), 1)
            assert project.stages_run("dvc", "repro") == []
    slowest = max(taken.values())
    rows = [
        {"command": name, "seconds": each, "speed-up": round(slowest / each, 2)}
        for name, each in taken.items()
    ]
    report("side_by_side", rows, f"the default run, {torch.get_num_threads()} thread(s) in all")
