"""Networks from any source through the pipeline: loaded teachers, and the user's own code."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from meal.core.digests import sha256
from tests.stages.conftest import Project

pytestmark = pytest.mark.slow


def change(project: Project, networks: dict[str, Any], **keys: Any) -> None:
    path = project.folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["networks"].update(networks)
    path.write_text(yaml.safe_dump({**params, **keys}, sort_keys=False))


def best_teacher(project: Project) -> str:
    """After two epochs, the others may be no better than chance, and are then not loaded."""
    errors = {}
    for name in ("vgg", "resnet", "preact"):
        rows = csv.DictReader(project.read(f"reports/training/teachers/{name}.csv").splitlines())
        errors[name] = float([*rows][-1]["validation_top1_error"])
    return min(errors, key=lambda name: errors[name])


def test_a_teacher_with_weights_is_loaded_not_trained(clean: Project, tmp_path: Path) -> None:
    name = best_teacher(clean)
    other = next(each for each in ("vgg", "resnet", "preact") if each != name)
    saved = clean.folder / "artifacts" / "teachers" / name / "weights.safetensors"
    file = tmp_path / "known.safetensors"
    file.write_bytes(saved.read_bytes())
    known = {**yaml.safe_load(clean.read("params.yaml"))["networks"][name]}
    known["weights"] = {"file": str(file), "sha256": sha256(saved)}
    change(clean, {"known": known}, teachers=[other, "known"])
    run = clean.stages_run("dvc", "repro")
    assert sorted(run) == sorted(
        [
            "configure", "teacher@known", "cache@known", "ensemble", "distill", "evaluate",
            "report", "export",
        ]
    )  # fmt: skip
    rows = clean.read("reports/training/teachers/known.csv").splitlines()
    assert rows[0].startswith("epoch,validation_top1_error") and rows[1].startswith("0,")
    assert len(rows) == 2
    loaded = json.loads(clean.read("reports/scores.json"))["teachers"]["known"]
    clean.run("git", "checkout", "-q", "-f", "main")
    trained = json.loads(clean.read("reports/scores.json"))["teachers"][name]
    assert loaded == trained


def test_a_backbone_with_a_new_head_starts_teacher_student_and_baseline(
    clean: Project, tmp_path: Path
) -> None:
    """One entry, in three roles; `training` is the teacher's alone."""
    saved = clean.folder / "artifacts" / "teachers" / "resnet" / "weights.safetensors"
    file = tmp_path / "known.safetensors"
    file.write_bytes(saved.read_bytes())
    tuned = {**yaml.safe_load(clean.read("params.yaml"))["networks"]["resnet"]}
    tuned["weights"] = {"file": str(file), "sha256": sha256(saved)}
    tuned |= {"head": "new", "training": {"epochs": 1, "frozen": "backbone"}}
    change(clean, {"tuned": tuned}, student="tuned", teachers=["vgg", "tuned"])
    all_of_it = [
        "configure", "teacher@tuned", "cache@tuned", "ensemble", "baseline", "distill", "evaluate",
        "report", "export",
    ]  # fmt: skip
    assert sorted(clean.stages_run("dvc", "repro")) == sorted(all_of_it)
    start = load_file(file)
    teacher, student, baseline = (
        load_file(clean.folder / "artifacts" / name / "weights.safetensors")
        for name in ("teachers/tuned", "student", "baseline")
    )
    kept = {name for name, value in teacher.items() if torch.equal(value, start[name])}
    assert kept == {*start} - {"fc.weight", "fc.bias"}
    for trained in (student, baseline):
        assert not torch.equal(trained["conv1.weight"], start["conv1.weight"])
    assert len(clean.read("reports/training/teachers/tuned.csv").splitlines()) == 2
    tuned["training"] = {"epochs": 1, "frozen": ["conv1"]}
    change(clean, {"tuned": tuned})
    run = clean.stages_run("dvc", "repro")
    assert "teacher@tuned" in run and "distill" in run
    assert "baseline" not in run and "teacher@vgg" not in run


def test_a_missing_weights_file_stops_the_run_before_anything_is_lost(clean: Project) -> None:
    weights = {"file": "nowhere.pt", "sha256": "0" * 64}
    change(clean, {"known": {"arch": "resnet18", "weights": weights}}, teachers=["vgg", "known"])
    result = clean.run("dvc", "repro", check=False)
    assert result.returncode != 0
    message = "networks.known.weights.file='nowhere.pt': no such file"
    assert f"error: params.yaml: {message}" in result.stderr + result.stdout
    assert (clean.folder / "artifacts/student/weights.safetensors").exists()


def test_a_change_to_the_users_own_code_retrains_what_uses_it(clean: Project) -> None:
    mine = {"arch": "networks.example:small_convnet", "options": {"planes": 4}}
    change(clean, {"mine": mine}, student="mine", teachers=["vgg", "mine"])
    own = [
        "configure",
        "teacher@mine",
        "cache@mine",
        "ensemble",
        "baseline",
        "distill",
        "evaluate",
        "report",
        "export",
    ]
    assert sorted(clean.stages_run("dvc", "repro")) == sorted(own)
    path = clean.folder / "networks" / "example.py"
    path.write_text(path.read_text().replace("nn.ReLU()", "nn.GELU()"))
    assert sorted(clean.stages_run("dvc", "repro")) == sorted(own)
