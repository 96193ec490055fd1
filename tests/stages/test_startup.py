"""The start-up benchmark ends a stage exactly at its first step."""

from __future__ import annotations

import shutil

import pytest

from tests.benchmarks.stages import STAGES, until
from tests.stages.conftest import Project

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("stage", [name for name, (_, target) in STAGES.items() if target])
def test_a_stage_ends_at_its_first_step(stage: str, clean: Project) -> None:
    shutil.rmtree(clean.folder / ".checkpoints", ignore_errors=True)
    before = clean.read("reports/training/student.csv")
    ended = clean.run(*until(stage, STAGES[stage][1]))
    assert "steps/s" not in ended.stdout and "images/s" not in ended.stdout
    assert clean.read("reports/training/student.csv") == before


def test_a_function_that_is_never_called_is_a_failure(clean: Project) -> None:
    ended = clean.run(*until("configure", "meal.core.files:write_csv"), check=False)
    assert ended.returncode == 3
