"""Kill `dvc repro`, `dvc exp run --temp` and the queue's tasks, then run them again."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

import psutil
import yaml

from tests.soak.common import Tally, different, hashes, set_seed
from tests.stages.conftest import Project

REPRO = ("dvc", "repro", "--no-run-cache")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
Found = TypeVar("Found")
_PATIENCE = 600.0  # seconds for one run
_TO_START = 20.0  # seconds within which a worker starts a stage


def kill_repro(project: Project, kills: int, seed: int) -> Tally:
    """Kill whole runs: DVC alone, which orphans its stage, the stage alone, or the group."""
    tally, expected, seconds = Tally("`dvc repro`"), {}, {}
    for number in (1, 2):
        set_seed(project, number)
        started = time.monotonic()
        project.run(*REPRO)
        seconds[number], expected[number] = time.monotonic() - started, hashes(project.folder)
    for index in range(kills):
        moment, number = random.Random(f"{seed} {index}"), 1 + index % 2
        sent, whom = SIGNALS[index % 3], ("dvc", "stage", "group")[index // 3 % 3]
        set_seed(project, number)
        after = moment.uniform(0.1, 1.0) * seconds[number]
        tally.attempts += 1
        tally.noticed += _killed(project, REPRO, after, sent, whom)
        again = _until_it_ends_well(project)
        tally.resumed += "resumed after" in again
        changed = different(expected[number], hashes(project.folder))
        if changed:
            tally.differing.append(f"signal {sent} to {whom} after {after:.2f} s: {changed}")
    return tally


def kill_temporary(project: Project, kills: int, seed: int) -> Tally:
    """Kill experiments that run in copies of the project."""
    command = ("dvc", "exp", "run", "--temp", "-S", "distill.seed=31")
    tally = Tally("`dvc exp run --temp`")
    forget_runs(project)
    started = time.monotonic()
    project.run(*command, "--name", "alone")
    seconds, expected = time.monotonic() - started, outputs(project, "alone")
    for index in range(kills):
        moment = random.Random(f"{seed} {index}")
        after = moment.uniform(0.1, 0.9) * seconds
        forget_runs(project)
        whom = ("dvc", "stage", "group")[index % 3]
        tally.attempts += 1
        killed = (*command, "--name", f"killed-{index}")
        tally.noticed += _killed(project, killed, after, SIGNALS[index % 2], whom)
        forget_runs(project)
        project.run(*command, "--name", f"again-{index}")
        if outputs(project, f"again-{index}") != expected:
            tally.differing.append(f"to {whom} after {after:.2f} s")
    return tally


def kill_tasks(project: Project, kills: int, seed: int) -> Tally:
    """Kill the tasks of a queue's worker, or their stages."""
    tally = Tally("tasks of `dvc queue`")
    for index in range(kills):
        moment = random.Random(f"{seed} {index}")
        flags = ("-S", f"distill.seed={300 + index}")  # DVC restores what has run before
        tally.attempts += 1
        project.run("dvc", "exp", "run", "--queue", "--name", f"lost-{index}", *flags)
        victims = _started(project, f"lost-{index}", moment.uniform(0.0, 6.0))
        if index % 2:  # the task, which orphans the stage
            victims = [owner for each in victims if (owner := _owner(each)) is not None]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(SIGNALS[index % 2])
                tally.noticed += 1
        _wait(lambda: not _stages(project) and not _active(project))
        project.run("dvc", "queue", "remove", "--failed", "--success", check=False)
        again, alone = f"task-{index}", f"alone-{index}"
        project.run("dvc", "exp", "run", "--queue", "--name", again, *flags)
        while not _listed(project, again):
            _started(project, again)
            time.sleep(1)
        _wait(lambda: not _active(project))
        forget_runs(project)
        project.run("dvc", "exp", "run", "--temp", "--name", alone, *flags)
        if outputs(project, again) != outputs(project, alone):
            tally.differing.append(f"task {index}")
    return tally


def start_queue(project: Project, jobs: int = 1) -> None:
    """Start the queue's workers. They inherit our streams: a pipe would stay open as long."""
    subprocess.run(
        ("dvc", "queue", "start", "--jobs", str(jobs)),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )


def forget_runs(project: Project) -> None:
    """Remove DVC's record of earlier runs, so that it runs the stages again."""
    shutil.rmtree(project.folder / ".dvc" / "cache" / "runs", ignore_errors=True)


def outputs(project: Project, name: str) -> dict[str, str]:
    """The hashes of an experiment's outputs, from its lock file."""
    ref = project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    own = next(each for each in ref if each.endswith(f"/{name}"))
    lock = yaml.safe_load(project.run("git", "show", f"{own}:dvc.lock").stdout)
    return {
        out["path"]: out["md5"]
        for stage in lock["stages"].values()
        for out in stage.get("outs", [])
        if "md5" in out
    }


def _started(project: Project, name: str, after: float = 0.0) -> list[psutil.Process]:
    """The running stages of a queued experiment, some seconds after its first; none if it is done.

    A worker that is about to end counts as running for `dvc queue start`, which then starts none:
    the queue is started again every now and then.
    """
    end, first = time.monotonic() + _PATIENCE, None
    while time.monotonic() < end:
        start_queue(project)
        again = time.monotonic() + _TO_START
        while time.monotonic() < again:
            found = _stages(project)
            if found:
                first = first or time.monotonic()
                if time.monotonic() >= first + after:
                    return found
            time.sleep(0.1)
        if _listed(project, name):
            return []
    raise AssertionError(f"{name} did not start")


def _listed(project: Project, name: str) -> bool:
    return name in project.run("dvc", "exp", "list", "--all-commits").stdout


def _active(project: Project) -> bool:
    status = project.run("dvc", "queue", "status").stdout
    return "Running" in status or "Queued" in status


def _killed(
    project: Project, command: tuple[str, ...], after: float, sent: signal.Signals, whom: str
) -> bool:
    """Start a command and kill it; whether it was still running."""
    process = subprocess.Popen(
        command,
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        if whom == "group":
            os.killpg(process.pid, sent)
        elif whom == "dvc":
            process.send_signal(sent)
        for stage in _stages(project) if whom == "stage" else []:
            stage.send_signal(sent)
        process.wait(_PATIENCE)
        return True
    return False


def _until_it_ends_well(project: Project) -> str:
    """Run at once, as a user would, and again while DVC's own lock stands in the way."""
    for _ in range(5):
        result = project.run(*REPRO, check=False)
        if result.returncode == 0:
            return result.stdout
        # A kill while DVC wrote its table of locks leaves half of it.
        if "RWLock-file" in result.stderr:
            (project.folder / ".dvc" / "tmp" / "rwlock").unlink(missing_ok=True)
        time.sleep(1)
    raise AssertionError(result.stdout + result.stderr)


def _stages(project: Project) -> list[psutil.Process]:
    """The running stages of a project and of the copies in it."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command, folder = process.info["cmdline"] or [], process.info["cwd"] or ""
        runs = "-m" in command and "stages." in " ".join(command[:3])
        if runs and "python" in command[0] and folder.startswith(str(project.folder)):
            found.append(process)
    return found


def _owner(stage: psutil.Process) -> psutil.Process | None:
    try:
        parent = stage.parent()
        if parent is not None and parent.name() in ("sh", "dash", "bash"):
            parent = parent.parent()
        return parent
    except psutil.NoSuchProcess:
        return None


def _wait(condition: Callable[[], Found]) -> Found:
    """What a condition gives once it is true."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError("it did not happen")
