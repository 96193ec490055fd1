from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from meal.cli import app


def test_networks_prints_the_cost_of_each() -> None:
    result = CliRunner().invoke(app, ["networks"])
    assert result.exit_code == 0
    row = next(line for line in result.output.splitlines() if "preact_resnet18" in line)
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "preact_resnet18", "0.5554", "11.172", "any",
    ]  # fmt: skip


def test_results_before_a_run_are_an_error_that_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["results"])
    assert result.exit_code == 1 and "run this in the project's folder" in result.output
    (tmp_path / "dvc.yaml").touch()
    result = CliRunner().invoke(app, ["results"])
    assert result.exit_code == 1
    assert "fix: dvc repro" in result.output
