"""Where the time of the default run goes: importing, computing, and DVC."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from meal.core.files import read_json
from tests.benchmarks.common import REPORTS, report
from tests.benchmarks.stages import OUTPUTS, STEP, seconds, until
from tests.conftest import ROOT
from tests.stages.conftest import Project, make_project

NAME = "default_run"
# By stage: the function whose first call ends its start-up; imports alone for those without one.
STAGES = {
    "configure": "meal.configure.checks:checked_slices",
    "prepare": "meal.prepare.preparation:prepare",
    "teacher vgg": STEP,
    "teacher resnet": STEP,
    "teacher preact": STEP,
    "cache vgg": OUTPUTS,
    "cache resnet": OUTPUTS,
    "cache preact": OUTPUTS,
    "ensemble": "meal.ensemble.build:build_ensemble",
    "baseline": STEP,
    "distill": STEP,
    "evaluate": "meal.evaluation.scoring:score_models",
    "report": "meal.report.pictures:error_against_cost",
    "export": "meal.export.bundle:export",
}


def run() -> None:
    """Run each stage of the default run, then DVC with nothing to do, then the start-up alone."""
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "project")
        shutil.copy(ROOT / "params.yaml", project.folder)
        project.environment.pop("OMP_NUM_THREADS", None)
        rows = [_stage(project, stage, target) for stage, target in STAGES.items()]
    report(NAME, rows, "seconds of each stage of the default run")
    draw()


def _stage(project: Project, stage: str, target: str) -> dict[str, Any]:
    name, *arguments = stage.split()
    command = ("dvc", "repro", "--single-item", "@".join([name, *arguments]))
    whole = seconds(project, *command)
    dvc = seconds(project, *command)  # nothing is left to do
    start = seconds(project, *until(stage, target))
    shutil.rmtree(project.folder / ".checkpoints", ignore_errors=True)
    return {
        "stage": stage,
        "start-up": round(start, 2),
        "work": round(max(0.0, whole - dvc - start), 2),
        "DVC": round(dvc, 2),
    }


def draw() -> None:
    """Draw `default_run.json` as one SVG: a bar for each stage."""
    from meal.report.figures import plt, save

    rows = pd.DataFrame(read_json(REPORTS / f"{NAME}.json", "make bench")["rows"])
    rows = rows.set_index("stage")[::-1]
    figure, axis = plt.subplots(figsize=(6.4, 3.8))
    rows.plot.barh(stacked=True, ax=axis, width=0.75)
    total = rows.to_numpy().sum()
    shares = ", ".join(f"{name} {100 * rows[name].sum() / total:.0f}%" for name in rows)
    axis.set(xlabel="seconds", ylabel="", title=f"the default run: {total:.0f} s ({shares})")
    axis.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    save(figure, REPORTS / f"{NAME}.svg")
