"""Start-up and memory of the stages, and `dvc repro` with nothing to do."""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.common import report
from tests.conftest import recipe_params
from tests.stages.conftest import Project, make_project, tiny_params

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

# The libraries that each stage needs, and the function whose first call ends the measurement: the
# stage's first step. Stages without one run to their end, on tiny data.
# A stage that trains or answers needs torch, and little else.
LIBRARIES = "pydantic, yaml, torch, safetensors.torch"
STEP, OUTPUTS = "meal.training.engine:_Trainer._optimise", "meal.cache.build:view_outputs"
# Pydantic loads lazily: it does so when a class is defined, not when it is imported.
MODELS = "yaml, pydantic; type('Model', (pydantic.BaseModel,), {})"
STAGES = {
    "configure": (MODELS, ""),
    "prepare": ("pydantic, yaml, torch, sklearn.datasets, sklearn.model_selection", ""),
    "teacher vgg": ("torch", STEP),
    "cache vgg": ("torch", OUTPUTS),
    "ensemble": ("pydantic, yaml, torch, safetensors.torch, scipy.optimize", ""),
    "baseline": ("torch", STEP),
    "distill": ("torch", STEP),
    "evaluate": (f"{LIBRARIES}, scipy.optimize, scipy.stats, sklearn.metrics", ""),
}

# Run a stage until the first call of a function, which must exist; exit with 3 if it is not called.
UNTIL = """
import functools, importlib, os, runpy, sys
stage, target, *sys.argv[1:] = sys.argv[1:]
if target:
    module, _, path = target.partition(":")
    *outer, name = path.split(".")
    owner = functools.reduce(getattr, outer, importlib.import_module(module))
    getattr(owner, name)
    setattr(owner, name, lambda *arguments: os._exit(0))
runpy.run_module(f"stages.{stage}", run_name="__main__")
sys.exit(3 if target else 0)
"""

# Use a small parent: a child's peak starts from that of the process that forks it.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def seconds(project: Project, *command: str) -> float:
    """Seconds that a command takes."""
    started = time.perf_counter()
    project.run(*command)
    return time.perf_counter() - started


def until(stage: str, target: str) -> tuple[str, ...]:
    """The command that runs a stage to the first call of `target`, or to its end."""
    name, *arguments = stage.split()
    return ("python", "-c", UNTIL, name, target, *arguments)


def run_startup(repeats: int = 3) -> None:
    """Measure the time to the first step, relative to importing what the stage needs."""
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "project")
        params = tiny_params()
        del params["networks"]["own"]  # checking its code imports torch
        (project.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        project.run("dvc", "repro")
        idle = [seconds(project, "dvc", "repro") for _ in range(repeats)]
        rows: list[dict[str, Any]] = [
            {"stage": "dvc repro, nothing to do", "seconds": round(statistics.median(idle), 2)}
        ]
        for stage, (libraries, target) in STAGES.items():
            bare, full = [], []
            shutil.rmtree(project.folder / ".checkpoints", ignore_errors=True)
            for _ in range(repeats):
                bare.append(seconds(project, "python", "-c", f"import {libraries}"))
                full.append(seconds(project, *until(stage, target)))
            rows.append(
                {
                    "stage": stage,
                    "seconds": round(statistics.median(full), 2),
                    "bare_import_seconds": round(statistics.median(bare), 2),
                    "ratio": round(statistics.median(full) / statistics.median(bare), 2),
                }
            )
    report("startup", rows, "time to the first step, relative to importing what the stage needs")


def run_memory() -> None:
    """Measure the peak resident memory of each stage on Fashion-MNIST: one epoch, two views."""
    if not FASHION_MNIST.is_dir():
        print(f"memory: not measured, {FASHION_MNIST} does not exist")
        return
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "project")
        params = recipe_params("fashion_mnist")
        params["data"]["root"] = str(FASHION_MNIST)
        params["teachers"] = ["resnet"]
        params["views"]["count"] = 2
        for section in ("teaching", "distill"):
            params[section].update(epochs=1, warmup_epochs=0)
        (project.folder / "params.yaml").write_text(yaml.safe_dump(params))
        rows = []
        for stage in STAGES:
            name, *arguments = stage.replace("vgg", "resnet").split()
            command = [sys.executable, "-m", f"stages.{name}", *arguments]
            output = project.run(sys.executable, "-c", PEAK, *command).stdout
            rows.append({"stage": name, "peak_mib": round(int(output.split()[-1]) / 1024)})
    report("memory", rows, "peak resident memory on Fashion-MNIST: 54,000 training images of 28x28")
