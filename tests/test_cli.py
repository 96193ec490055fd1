from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meal.cli.main import app
from meal.evaluation.costs import count
from meal.evaluation.zoo import KNOWN, zoo_costs
from meal.models.spec import NetworkSpec
from meal.models.zoo.registry import ZOO
from tests.conftest import ROOT


def test_networks_prints_the_cost_of_each() -> None:
    result = CliRunner().invoke(app, ["networks"])
    assert result.exit_code == 0
    row = next(line for line in result.output.splitlines() if "preact_resnet18" in line)
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        "preact_resnet18", "0.5554", "11.172", "any",
    ]  # fmt: skip


def test_the_costs_on_file_are_those_of_the_networks() -> None:
    names = sorted(set(ZOO) - {"tiny"})  # without that of the tests
    counted = {name: count(NetworkSpec(name, 1.0, 3, 32, 10)) for name in names}
    expected = {name: [cost.parameters, cost.macs] for name, cost in counted.items()}
    assert json.loads(KNOWN.read_text()) == expected
    other = zoo_costs(["resnet18"], 1, 16, 5)["resnet18"]  # not on file: counted
    assert other[1] < expected["resnet18"][1] / 3


def test_one_network_is_shown_at_once() -> None:
    result = CliRunner().invoke(app, ["networks", "resnet18"])
    assert result.exit_code == 0 and "resnet18" in result.output and "vgg19" not in result.output
    result = CliRunner().invoke(app, ["networks", "resnet"])
    assert result.exit_code == 1 and "allowed: densenet" in result.output
    code = (
        "import sys; from meal.cli.main import app\n"
        "sys.argv = ['meal', 'networks', 'resnet18']\n"
        "try: app()\n"
        "finally: print({'torch', 'timm'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "set()"


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
