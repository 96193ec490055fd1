"""Two queue workers and a workspace run the same project at once, for minutes."""

from __future__ import annotations

import time

from tests.soak.common import Tally, different, hashes, set_seed
from tests.soak.dvc_kills import REPRO, forget_runs, outputs, start_queue
from tests.stages.conftest import Project

_FIRST = 100  # the seed of the first queued experiment
_CHECKED = 4  # experiments that are run again, alone


def crowd(project: Project, minutes: float) -> Tally:
    """Run all three; compare what they made with runs that were alone."""
    tally, expected = Tally("two workers and a workspace"), {}
    for seed in (1, 2):
        set_seed(project, seed)
        project.run(*REPRO)
        expected[seed] = hashes(project.folder)
    queued = int(4 * minutes)
    for seed in range(_FIRST, _FIRST + queued):
        flags = ("-S", f"distill.seed={seed}")
        project.run("dvc", "exp", "run", "--queue", "--name", f"crowd-{seed}", *flags)
    start_queue(project, jobs=2)
    end, turn = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        turn += 1
        seed = 1 + turn % 2
        set_seed(project, seed)
        result = project.run(*REPRO, check=False)
        tally.attempts += 1
        if result.returncode:
            tally.differing.append(f"workspace: {result.stderr.strip().splitlines()[-1:]}")
        elif changed := different(expected[seed], hashes(project.folder)):
            tally.differing.append(f"workspace: {changed}")
    project.run("dvc", "queue", "stop")  # after their present tasks
    while "Running" in project.run("dvc", "queue", "status").stdout:
        time.sleep(2)
    done = [f"crowd-{seed}" for seed in range(_FIRST, _FIRST + queued)]
    listed = project.run("dvc", "exp", "list", "--all-commits", "--name-only").stdout.split()
    done = [name for name in done if name in listed]
    tally.attempts += len(done)
    if not done:
        tally.differing.append("no experiment finished")
    for name in done[:: max(1, len(done) // _CHECKED)]:
        flags = ("-S", f"distill.seed={name.partition('-')[2]}")
        forget_runs(project)
        project.run("dvc", "exp", "run", "--temp", "--name", f"{name}-a", *flags)
        if outputs(project, f"{name}-a") != outputs(project, name):
            tally.differing.append(name)
    failed = project.run("dvc", "queue", "status").stdout.count("Failed")
    if failed:
        tally.differing.append(f"{failed} tasks failed")
    return tally
