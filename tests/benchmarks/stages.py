"""Start-up and memory of the stages, and `dvc repro` with nothing to do."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.common import report
from tests.conftest import ROOT
from tests.stages.conftest import Project, make_project

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

# The libraries that a stage cannot do without, and what ends it at its first step.
TRAINS = "import meal.training.engine as e; e._train_epoch = lambda *a: os._exit(0)"
ANSWERS = "import meal.teaching.build as b; b._answers = lambda *a: os._exit(0)"
# Pydantic loads itself when a class is made: a bare import of it imports nothing.
MODELS = "yaml, pydantic; type('Model', (pydantic.BaseModel,), {})"
STAGES = {
    "configure": (MODELS, ""),
    "prepare": ("pydantic, yaml, torch, sklearn.datasets, sklearn.model_selection", ""),
    "teacher vgg": ("pydantic, yaml, torch, timm, safetensors.torch, tqdm", TRAINS),
    "cache vgg": ("pydantic, yaml, torch, timm, safetensors.torch, tqdm", ANSWERS),
    "ensemble": ("pydantic, yaml, torch, safetensors.torch", ""),
    "baseline": ("pydantic, yaml, torch, timm, safetensors.torch, tqdm", TRAINS),
    "distill": ("pydantic, yaml, torch, timm, safetensors.torch, tqdm", TRAINS),
    "evaluate": ("pydantic, yaml, torch, timm, safetensors.torch", ""),
}

# A small parent: a child's peak starts from that of the process it was forked from.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def _seconds(project: Project, code: str) -> float:
    started = time.perf_counter()
    project.run("python", "-c", code)
    return time.perf_counter() - started


def _start(stage: str, stop: str) -> str:
    name, *arguments = stage.split()
    argv = ["-m", *arguments]
    return (
        f"import os, sys; {stop or 'pass'}; sys.argv = {argv!r}; import runpy; "
        f"runpy.run_module('stages.{name}', run_name='__main__')"
    )


def run_startup(repeats: int = 2) -> None:
    """Seconds until the first step, over the bare import of what the stage needs."""
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "project")
        project.run("dvc", "repro")
        idle = []
        for _ in range(repeats):
            started = time.perf_counter()
            assert project.stages_run("dvc", "repro") == []
            idle.append(time.perf_counter() - started)
        rows: list[dict[str, Any]] = [
            {"stage": "dvc repro, nothing to do", "seconds": round(statistics.median(idle), 2)}
        ]
        for stage, (libraries, stop) in STAGES.items():
            bare, full = [], []
            for _ in range(repeats):
                bare.append(_seconds(project, f"import {libraries}"))
                full.append(_seconds(project, _start(stage, stop)))
            rows.append(
                {
                    "stage": stage,
                    "seconds": round(statistics.median(full), 2),
                    "bare_import_seconds": round(statistics.median(bare), 2),
                    "ratio": round(statistics.median(full) / statistics.median(bare), 2),
                }
            )
    report("startup", rows, "until the first step, over the bare import of what the stage needs")


def run_memory() -> None:
    """Peak resident memory of each stage on Fashion-MNIST, one epoch and two views."""
    if not FASHION_MNIST.is_dir():
        print(f"memory: not measured, {FASHION_MNIST} is not there")
        return
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "project")
        params = yaml.safe_load((ROOT / "recipes" / "fashion_mnist.yaml").read_text())
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
