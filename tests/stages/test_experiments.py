"""Sweeps and tables on a real DVC project."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time

import psutil
import pytest

from tests.stages.conftest import Project

pytestmark = pytest.mark.slow


@pytest.fixture
def project(clean: Project) -> Project:
    """The project without other tests' experiments, which the table would show."""
    clean.run("dvc", "exp", "remove", "--all-commits")
    return clean


def names(project: Project) -> list[str]:
    return project.run("dvc", "exp", "list", "--name-only").stdout.split()


def cut_power(project: Project, sweep: list[str]) -> None:
    """Start a sweep, and kill all its processes when two stages run."""
    with subprocess.Popen(sweep, cwd=project.folder, stdout=subprocess.DEVNULL) as started:
        while True:
            own = processes(project)
            if sum("stages." in command for command in own.values()) >= 2:
                break
            assert started.poll() is None
            time.sleep(0.2)
        for process in own:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    assert started.returncode == -signal.SIGKILL


def processes(project: Project) -> dict[psutil.Process, str]:
    """The processes that run in a project, and their command lines."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has just ended
            if process.cwd().startswith(str(project.folder)):
                found[process] = " ".join(process.cmdline())
    return found


def test_a_sweep_runs_each_combination_once_and_the_table_pairs_seeds(project: Project) -> None:
    before = set(names(project))
    sweep = ["python", "-m", "meal", "sweep", "-S", "distill.adversarial=off,minimax"]
    sweep += ["-S", "distill.seed=1,2", "-j", "2"]
    cut_power(project, sweep)
    with subprocess.Popen(["sleep", "1000"]) as innocent:
        for file in (project.folder / ".dvc/tmp/exps/run").glob("*/*.json"):
            process = json.loads(file.read_text())  # its number has been given to another process
            file.write_text(json.dumps({**process, "pid": innocent.pid}))
        told = project.run(*sweep).stdout
        assert innocent.poll() is None
        innocent.kill()
    assert "ended without a result: " in told
    assert len(re.findall(r"^started \S+ \(\d of 4 done\)$", told, re.MULTILINE)) == 4
    assert len(re.findall(r"^finished \S+ \(\d of 4 done\)$", told, re.MULTILINE)) == 4
    made = set(names(project)) - before
    assert len(made) == 4
    project.run(*sweep)  # nothing is left to run
    assert set(names(project)) - before == made

    table = ["python", "-m", "meal", "table", "--reference", "distill.adversarial=off"]
    table += ["--where", "distill.beta=0.1", "--out", "reports/results/modes_0.1"]
    printed = project.run(*table).stdout
    rows = [[cell.strip() for cell in row.split("|")] for row in printed.splitlines()]
    seeds = {row[1]: row[2] for row in rows if len(row) > 2}
    assert seeds["off"] == "2" and seeds["minimax"] == "2"
    report = project.read("reports/results/modes_0.1.md")
    assert "commit    " in report and "versions  python" in report and printed.strip() in report
    assert project.read("reports/results/modes_0.1.csv").startswith(
        "distill.adversarial,seeds,mean"
    )
    assert "</svg>" in project.read("reports/results/modes_0.1.svg")
    listed = project.run("python", "-m", "meal", "experiments").stdout.splitlines()
    assert max(map(len, listed)) <= 120 and listed[0].startswith("experiment")
    own = [line for line in listed if "distill.adversarial=off" in line]
    assert len(own) == 2 and all(line.split()[2] == "-" for line in own)  # no test error
    # A sweep up to `distill` scores no test images, so the table of test errors is empty.
    test = project.run(
        "python", "-m", "meal", "table", "--file", "reports/scores.json", check=False
    )
    assert test.returncode == 1
    assert "no experiment has student.top1_error in reports/scores.json" in test.stderr


def test_an_experiment_that_fails_is_named(project: Project) -> None:
    result = project.run(
        "python", "-m", "meal", "sweep", "-S", "distill.lr=1e8", "-S", "distill.seed=5",
        check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "1 of 1 experiments failed: lr-" in result.stderr
    assert "see: dvc queue logs NAME" in result.stderr
