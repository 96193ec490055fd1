"""Signals that ask a stage to stop: nothing half-written is left, and nothing holds it forever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meal.core import signals
from meal.core.signals import recorded_signals
from tests.conftest import ROOT

# A stage that was asked to stop while it writes a folder.
WRITES = """
import os, signal
from pathlib import Path
from meal.core.files import atomic_folder
from meal.core.stage import run_stage

def main():
    with atomic_folder(Path("out")) as made:
        (made / "half").write_text("half")
        os.kill(os.getpid(), signal.SIGTERM)

run_stage(main)
"""


def test_a_stage_that_is_terminated_leaves_nothing_half_written(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WRITES]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode, list(tmp_path.iterdir())) == (130, [])
    assert ended.stderr == "interrupted; resume with: dvc repro\n"


def test_a_second_sigterm_ends_a_process_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is only recorded, as are others of the same moment."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with recorded_signals() as interruption:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested == signal.SIGTERM
        now += signals._PATIENCE + 1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
