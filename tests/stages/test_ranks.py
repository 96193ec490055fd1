"""A stage as several ranks: the same results, and an end without a hang, whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from tests.soak.common import make_folder_project
from tests.stages.conftest import Project

pytestmark = pytest.mark.slow
CHECKPOINTS = "distill/*/*.pt"
Process = subprocess.Popen[bytes]


def change(project: Project, section: str, **values: object) -> None:
    params = yaml.safe_load(project.read("params.yaml"))
    params[section].update(values)
    (project.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def test_a_cache_and_scores_have_the_bytes_of_one_process(clean: Project) -> None:
    before = clean.read("dvc.lock")
    change(clean, "runtime", processes=2)
    clean.run("dvc", "repro", "configure")
    for stage in ("cache@vgg", "evaluate"):
        ran = clean.run("dvc", "repro", "--force", "--no-run-cache", "--single-item", stage)
        assert "Running stage" in ran.stdout
    texts = (clean.read("dvc.lock"), before)
    now, was = (yaml.safe_load(text)["stages"] for text in texts)
    assert now["cache@vgg"]["outs"] == was["cache@vgg"]["outs"]
    outs = [{o["path"]: o["md5"] for o in lock["evaluate"]["outs"]} for lock in (now, was)]
    differing = {path for path, md5 in outs[0].items() if outs[1][path] != md5}
    assert differing == {"reports/scores.json"}  # which records the number of processes
    scores = json.loads(clean.read("reports/scores.json"))
    assert scores["run"]["processes"] == 2


@pytest.fixture
def long(clean: Project) -> Project:
    """Distillation by two ranks that takes long enough to be disturbed."""
    change(clean, "runtime", processes=2, checkpoint_minutes=0.01)
    change(clean, "distill", epochs=14, batch_size=128)
    clean.run("dvc", "repro", "configure")
    shutil.rmtree(clean.folder / ".checkpoints", ignore_errors=True)
    return clean


def start(project: Project, log: Path) -> Process:
    """Start to distill; return once there is a checkpoint."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.distill"],
            cwd=project.folder, env=project.environment, stdout=output, stderr=output,
        )  # fmt: skip
    wait_for_checkpoint(project, process, log)
    return process


def wait_for_checkpoint(project: Project, process: Process, log: Path) -> None:
    end = time.monotonic() + 120
    while not list((project.folder / ".checkpoints").glob(CHECKPOINTS)):
        assert time.monotonic() < end and process.poll() is None, log.read_text()
        time.sleep(0.05)


def ranks_of(process: Process) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "stages.distill" in child.cmdline()
    ]


def kill_a_rank(process: Process) -> None:
    ranks_of(process)[-1].kill()


def kill_the_launcher(process: Process) -> None:
    process.kill()


def interrupt(process: Process) -> None:
    process.send_signal(signal.SIGINT)


def terminate_all(process: Process) -> None:
    """As Slurm and systemd do."""
    everyone = [process.pid, *(rank.pid for rank in ranks_of(process))]
    for number in everyone:
        os.kill(number, signal.SIGTERM)


@pytest.mark.parametrize(
    ("disturb", "status", "said"),
    [
        (kill_a_rank, 1, "error: process 1 was ended by SIGKILL; resume with: dvc repro"),
        (interrupt, 130, "SIGINT received; student resnet is saved at step"),
        (terminate_all, 143, "SIGTERM received; student resnet is saved at step"),
        (kill_the_launcher, -9, ""),
    ],
)
def test_a_disturbed_run_ends_and_resumes_with_another_number_of_ranks(
    disturb: Callable[[Process], None],
    status: int,
    said: str,
    long: Project,
    tmp_path: Path,
) -> None:
    process = start(long, tmp_path / "log")
    mine = ranks_of(process)
    assert len(mine) == 2
    disturb(process)
    assert process.wait(timeout=60) == status, (tmp_path / "log").read_text()
    psutil.wait_procs(mine, timeout=60)
    assert not any(each.is_running() for each in mine)
    log = (tmp_path / "log").read_text()
    assert said in log and "Traceback" not in log
    assert log.count("resume with") <= 1
    change(long, "runtime", processes=1)
    ended = long.run(sys.executable, "-m", "stages.distill")
    assert "resumed after step" in ended.stdout and "epoch 14/14" in ended.stdout


def test_an_error_is_printed_once(clean: Project) -> None:
    change(clean, "runtime", processes=3)
    change(clean, "distill", batch_size=128)
    clean.run("dvc", "repro", "configure")
    ended = clean.run(sys.executable, "-m", "stages.distill", check=False)
    assert ended.returncode == 1
    errors = [line for line in ended.stderr.splitlines() if line.strip()]
    assert errors == [
        "error: distill.batch_size=128: a batch of 128 images cannot be divided among 3 processes; "
        "allowed: a multiple of 3, or another runtime.processes"
    ]


def cluster(project: Project, log: Path, node: int, port: int, *targets: str) -> Process:
    command = [sys.executable, "-m", "meal", "cluster", f"localhost:{port}", "--node", str(node)]
    with log.open("w") as output:
        return subprocess.Popen(
            [*command, *targets],
            cwd=project.folder, env=project.environment, stdout=output, stderr=output,
        )  # fmt: skip


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        number: int = free.getsockname()[1]
    return number


def test_machines_run_one_pipeline(clean: Project, port: int, tmp_path: Path) -> None:
    change(clean, "runtime", processes=1, nodes=2)
    change(clean, "teaching", lr=0.07)
    logs = [tmp_path / "first", tmp_path / "second"]
    machines = [cluster(clean, log, node, port, "cache@vgg") for node, log in enumerate(logs)]
    assert [each.wait(timeout=300) for each in machines] == [0, 0], logs[0].read_text()
    first, second = (log.read_text() for log in logs)
    assert first.count("teacher@vgg: epoch 2/2") == first.count("Running stage 'cache@vgg'") == 1
    assert "Traceback" not in first and second in ("", f"waiting for localhost:{port}\n")
    change(clean, "runtime", nodes=1)
    assert clean.stages_run("dvc", "repro", "cache@vgg") == ["configure"]


def start_two(project: Project, port: int, folder: Path) -> tuple[list[Process], list[Path]]:
    """Start to distill on two machines; return them and their logs once there is a checkpoint."""
    change(project, "runtime", processes=1, nodes=2)
    project.run("dvc", "repro", "configure")
    logs = [folder / "first", folder / "second"]
    machines = [cluster(project, log, node, port, "distill") for node, log in enumerate(logs)]
    wait_for_checkpoint(project, machines[0], logs[0])
    return machines, logs


def test_a_machine_that_fails_ends_the_stage_on_all(
    long: Project, port: int, tmp_path: Path
) -> None:
    machines, logs = start_two(long, port, tmp_path)
    kill_a_rank(machines[1])
    assert machines[0].wait(timeout=60) != 0
    assert machines[1].wait(timeout=60) == 0  # until it is needed again
    assert "process 0 has lost another" in logs[0].read_text()
    assert "was ended by SIGKILL" in logs[1].read_text()


def test_an_interrupted_first_machine_saves_its_work(
    long: Project, port: int, tmp_path: Path
) -> None:
    machines, logs = start_two(long, port, tmp_path)
    machines[0].send_signal(signal.SIGINT)
    assert machines[0].wait(timeout=60) != 0 and machines[1].wait(timeout=60) == 0
    log = logs[0].read_text()
    assert "SIGINT received; student resnet is saved at step" in log
    assert "Traceback" not in log + logs[1].read_text()


def test_a_machine_that_waits_can_be_interrupted(clean: Project, port: int, tmp_path: Path) -> None:
    waiting = cluster(clean, tmp_path / "log", 1, port)
    end = time.monotonic() + 60
    while "waiting for localhost" not in (tmp_path / "log").read_text():
        assert time.monotonic() < end and waiting.poll() is None
        time.sleep(0.1)
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(timeout=20) == 130
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_several_machines_need_the_command_that_joins_them(clean: Project) -> None:
    change(clean, "runtime", nodes=2)
    clean.run("dvc", "repro", "configure")
    ended = clean.run(sys.executable, "-m", "stages.distill", check=False)
    wanted = "error: runtime.nodes=2: run `python -m meal cluster` on each machine"
    assert ended.returncode == 1 and wanted in ended.stderr


def test_ranks_prepare_the_bytes_of_one_process(tmp_path: Path) -> None:
    own = make_folder_project(tmp_path / "folder")
    own.run("dvc", "repro", "prepare")
    before = own.read("dvc.lock")
    change(own, "runtime", processes=3, workers=1)
    own.run("dvc", "repro", "configure")
    own.run("dvc", "repro", "--force", "--no-run-cache", "--single-item", "prepare")
    after = own.read("dvc.lock")
    assert before.partition("  prepare:")[2] == after.partition("  prepare:")[2] != ""
    broken = next(path for path in (tmp_path / "images").rglob("*") if path.is_file())
    broken.write_bytes(b"not an image")
    ended = own.run(sys.executable, "-m", "stages.prepare", check=False)
    assert ended.returncode == 1 and broken.name in ended.stderr and "Traceback" not in ended.stderr
    assert ended.stderr.count("error:") == 2  # one line for all files, and one for this one
