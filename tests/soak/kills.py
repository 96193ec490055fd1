"""Kill stages at random moments and run them again: is the result that of an undisturbed run?"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time

from tests.soak.common import Tally, hashes
from tests.stages.conftest import Project

OUTPUTS: dict[str, tuple[str, ...]] = {
    "prepare": ("artifacts/data",),
    "teacher vgg": ("artifacts/teachers/vgg", "reports/training/teachers/vgg.csv"),
    "cache vgg": ("artifacts/caches/vgg",),
    "ensemble": ("artifacts/ensemble",),
    "baseline": ("artifacts/baseline", "reports/training/baseline.csv"),
    "distill": (
        "artifacts/student",
        "reports/training/student.csv",
        "reports/validation_scores.json",
    ),
    "evaluate": ("artifacts/predictions", "reports/scores.json", "reports/confusion.csv"),
    "report": ("reports/index.html", "reports/figures"),
    "export": ("artifacts/export",),
}
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]

# Run a stage that sends itself a signal before its n-th change to a file; print how many it made.
HARNESS = """
import atexit, os, runpy, sys
number, at, stage, *arguments = sys.argv[1:]
changes = 0
CHANGES = {"os.rename", "os.remove", "os.link", "os.rmdir", "os.mkdir", "shutil.rmtree"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
def watch(event, details):
    global changes
    if event in CHANGES or event == "open" and details[2] & WRITES and details[0] != "/dev/null":
        changes += 1
        if changes == int(at):
            os.kill(os.getpid(), int(number))
sys.argv = ["stages." + stage, *arguments]
sys.addaudithook(watch)
atexit.register(lambda: print("changes", changes))
runpy.run_module("stages." + stage, run_name="__main__")
"""


class Target:
    """A finished project, whose stages are run again, killed, and then run to their end."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._expected: dict[str, dict[str, str]] = {}
        self._seconds: dict[str, float] = {}
        self._changes: dict[str, int] = {}

    def kill(self, stage: str, number: int, moment: random.Random, tally: Tally) -> None:
        """Run a stage, send it a signal at a random moment, run it to its end, and compare."""
        self._measure(stage)
        self._remove(stage)
        if moment.random() < 0.5:  # at a change to a file
            at = moment.randint(1, self._changes[stage])
            killed = self._run(stage, number, at)[1]
            where = f"{stage}, signal {number}, before change {at} of {self._changes[stage]}"
        else:
            after = moment.uniform(0.2, 1.0) * self._seconds[stage]
            group = moment.random() < 0.5  # including its workers, as Ctrl-C does
            killed = self._run(stage, number, after=after, group=group)[1]
            receiver = "the group" if group else "the process"
            where = f"{stage}, signal {number} to {receiver}, after {after:.2f} s"
        tally.attempts += 1
        tally.noticed += killed != 0  # else it had already finished
        again = self._run(stage)[0]
        tally.resumed += "resumed after" in again
        if self._hashes(stage) != self._expected[stage]:
            tally.differing.append(f"{where}: {again.strip().splitlines()[-1:]}")

    def _measure(self, stage: str) -> None:
        """Measure one uninterrupted run: its bytes, its seconds, and its changes to files."""
        if stage not in self._expected:
            self._remove(stage)
            started = time.monotonic()
            output = self._run(stage)[0]
            self._seconds[stage] = time.monotonic() - started
            self._changes[stage] = int(output.split("changes")[-1])
            self._expected[stage] = self._hashes(stage)
            assert self._expected[stage]

    def _run(
        self,
        stage: str,
        number: int = 0,
        at: int = -1,
        after: float | None = None,
        group: bool = False,
    ) -> tuple[str, int]:
        """Run a stage; return its output and its exit status."""
        command = [sys.executable, "-c", HARNESS, str(int(number)), str(at), *stage.split()]
        process = subprocess.Popen(
            command,
            cwd=self.project.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        if after is not None:
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                send = os.killpg if group else os.kill
                send(process.pid, number)
        return process.communicate()[0], process.returncode

    def _remove(self, stage: str) -> None:
        """Remove a stage's outputs, as DVC does before it runs the stage."""
        for name in OUTPUTS[stage]:
            path = self.project.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _hashes(self, stage: str) -> dict[str, str]:
        return hashes(self.project.folder, OUTPUTS[stage])


def kill_stages(project: Project, kills: int, seed: int, kind: str = "stages") -> Tally:
    """Kill stages in turn, `kills` times, at moments derived from `seed`."""
    target, tally = Target(project), Tally(kind)
    stages = list(OUTPUTS)
    for index in range(kills):
        moment = random.Random(f"{seed} {index}")
        target.kill(stages[index % len(stages)], SIGNALS[index % len(SIGNALS)], moment, tally)
    return tally
