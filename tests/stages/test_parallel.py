"""`meal run -j 2`: the outputs of `dvc repro`, stages side by side, stopped and resumed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stages.conftest import Project

pytestmark = pytest.mark.slow

RUN = (sys.executable, "-m", "meal", "run", "-j", "2")


def spans(output: str) -> dict[str, tuple[int, int]]:
    """The first and the last line of each stage's output."""
    found: dict[str, tuple[int, int]] = {}
    for number, line in enumerate(output.splitlines()):
        match = re.match(r"\[([\w@]+)\]", line)
        if match:
            found[match[1]] = found.get(match[1], (number, number))[0], number
    return found


def working_in(folder: Path) -> list[str]:
    """The command lines of the processes whose working folder this is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").resolve() == folder.resolve():
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


def set_seed(project: Project, seed: int) -> None:
    path = project.folder / "params.yaml"
    path.write_text(re.sub(r"^seed: \d+", f"seed: {seed}", path.read_text(), flags=re.MULTILINE))


def test_stages_run_side_by_side_and_give_the_same_outputs(clean: Project) -> None:
    set_seed(clean, 5)
    result = clean.run(*RUN)
    lock = clean.read("dvc.lock")
    assert clean.stages_run("dvc", "repro") == []  # nothing is left to do
    at = spans(result.stdout)
    assert {"teacher@vgg", "cache@vgg", "baseline", "ensemble", "distill", "export"} <= at.keys()
    assert at["teacher@resnet"][0] < at["teacher@vgg"][1]  # the second began before the first ended
    clean.run("git", "checkout", "-q", "-f", "main")
    clean.run("dvc", "checkout", "-q", "-f")
    set_seed(clean, 5)
    clean.run("dvc", "repro", "--no-run-cache")
    assert clean.read("dvc.lock") == lock


def test_ctrl_c_stops_all_processes_and_the_same_command_resumes(clean: Project) -> None:
    set_seed(clean, 6)
    running = subprocess.Popen(
        RUN, cwd=clean.folder, env=clean.environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert running.stdout is not None
    seen = []
    for line in running.stdout:
        seen.append(line)
        if line.startswith("[teacher@") and "epoch 1/" in line:
            os.kill(running.pid, signal.SIGINT)
            break
    rest = running.stdout.read()
    assert running.wait(60) == 1
    assert "stopped by SIGINT, see above; to resume: python -m meal run -j 2" in rest
    assert working_in(clean.folder) == []
    assert clean.run(*RUN).returncode == 0
    assert clean.stages_run("dvc", "repro") == []


def test_the_first_failure_stops_the_others(clean: Project) -> None:
    set_seed(clean, 7)
    path = clean.folder / "stages" / "baseline.py"
    path.write_text(
        path.read_text().replace("def main() -> None:", "def main() -> None:\n    1 / 0")
    )
    result = clean.run(*RUN, check=False)
    assert result.returncode == 1
    assert "stopped by baseline, see above; to resume: python -m meal run -j 2" in result.stderr
    assert "ZeroDivisionError" in result.stdout
    assert not (clean.folder / "reports" / "index.html").exists() or "[report]" not in result.stdout
