"""A stage whose `dvc repro` was killed saves its work and leaves; the next run goes on."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.stages.conftest import make_project, tiny_params

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("shell", ["sh", "bash -c"])
def test_the_next_run_resumes_at_once(shell: str, tmp_path: Path) -> None:
    """DVC starts a stage through a shell, which stays between them if the command is compound."""
    own = make_project(tmp_path / "orphan")
    params = tiny_params()
    params["teachers"], params["distill"]["epochs"] = ["vgg"], 40
    (own.folder / "params.yaml").write_text(yaml.safe_dump(params))
    if shell != "sh":
        flow = own.read("dvc.yaml").replace(
            "cmd: python -m stages.distill", "cmd: python -m stages.distill && true"
        )
        (own.folder / "dvc.yaml").write_text(flow)
    log = (tmp_path / "log").open("w+")
    dvc = subprocess.Popen(
        ("dvc", "repro"), cwd=own.folder, env=own.environment, stdout=log, stderr=log
    )
    end = time.monotonic() + 300
    while not list((own.folder / ".checkpoints").glob("distill/*/*.pt")):
        assert time.monotonic() < end and dvc.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    dvc.send_signal(signal.SIGKILL)
    dvc.wait()
    again = own.run("dvc", "repro")
    assert "resumed after step" in again.stdout
    assert "SIGTERM received; student resnet is saved at step" in (tmp_path / "log").read_text()
    ours = [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == str(own.folder)]
    assert not ours
