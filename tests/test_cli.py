from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from meal.cli import app
from tests.conftest import ROOT


def test_networks_prints_what_each_costs() -> None:
    result = CliRunner().invoke(app, ["networks"])
    assert result.exit_code == 0
    row = next(line for line in result.output.splitlines() if "preact_resnet18" in line)
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "preact_resnet18", "0.5554", "11.172", "any",
    ]  # fmt: skip


def test_results_before_a_run_say_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["results"])
    assert result.exit_code == 1 and "run it in the project's folder" in result.output
    (tmp_path / "dvc.yaml").touch()
    result = CliRunner().invoke(app, ["results"])
    assert result.exit_code == 1
    assert "run: dvc repro" in result.output


# Every command that the README shows, and what runs it: a new one needs a test and a line here.
PIPELINE = "tests/stages/test_pipeline.py"
SWEEPS = "tests/stages/test_experiments.py"
COMPARE = "tests/stages/test_compare.py"
COVERED = {
    "make repro": ".ci/run",
    "make test": ".ci/run",
    "dvc repro": PIPELINE,
    "python -m meal results": PIPELINE,
    "python -m meal networks": "tests/test_cli.py",
    "dvc exp run -S student=densenet": PIPELINE,
    "dvc exp run -S 'teachers=[vgg,resnet]'": PIPELINE,
    "dvc exp run -S 'teachers=[vgg,resnet,preact,mobilenet]'": PIPELINE,
    "dvc exp run -S distill.seed=1": PIPELINE,
    "dvc exp run distill -S distill.beta=0.1": PIPELINE,
    "dvc metrics diff": PIPELINE,
    "dvc params diff": PIPELINE,
    "dvc plots show": PIPELINE,
    "dvc plots diff": "tests/stages/test_browser.py",
    "python -m meal compare main": COMPARE,
    "make review BASE=main": COMPARE,
    "python -m meal timings": COMPARE,
    "MEAL_SHARD=1/2 python -m stages.cache vgg & MEAL_SHARD=2/2 python -m stages.cache vgg; wait": (
        "tests/stages/test_shared_caches.py"
    ),
    "dvc repro cache@vgg": "tests/stages/test_shared_caches.py",
    "cp artifacts/baseline/weights.safetensors start.safetensors": PIPELINE,
    "sha256sum start.safetensors": PIPELINE,
    "python -m meal sweep -S distill.adversarial=off,minimax -S distill.seed=0,1,2 -j 2": SWEEPS,
    "python -m meal table --reference distill.adversarial=off": SWEEPS,
}


def test_every_command_of_the_readme_is_run_by_a_test() -> None:
    blocks = (ROOT / "README.md").read_text().split("```")[1::2]
    commands = {
        line.partition("#")[0].strip()
        for block in blocks
        if block.startswith("\n")  # a block with a language is a picture
        for line in block.splitlines()
        if line.strip()
    }
    assert commands == set(COVERED)
