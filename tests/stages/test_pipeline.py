"""The pipeline run by DVC, as a user runs it: which stages run, and which numbers they report.

The tests share one project and reset it to its first commit, where nothing is left to run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from meal.data.prepared import open_prepared
from meal.models.checkpoint import load
from tests.conftest import recipe_params
from tests.datasets.test_sources import write_fashion_mnist
from tests.stages.conftest import Project, make_project

AFTER_DISTILL = ["distill", "evaluate", "report", "export"]
ALL = [
    "configure", "prepare", "teacher@vgg", "teacher@resnet", "teacher@preact", "cache@vgg",
    "cache@resnet", "cache@preact", "ensemble", "baseline", "distill", "evaluate", "report",
    "export",
]  # fmt: skip


def test_a_first_run_runs_every_stage_once(project: Project) -> None:
    assert sorted(project.first_run) == sorted(ALL)


def test_a_second_run_has_nothing_to_do(clean: Project) -> None:
    assert clean.stages_run("dvc", "repro") == []
    assert clean.run("git", "status", "--porcelain").stdout == ""


def test_every_stage_has_a_description(clean: Project) -> None:
    for line in clean.run("dvc", "stage", "list", "--all").stdout.splitlines():
        assert len(line.split(maxsplit=1)[1]) > 10, line


def test_the_metrics_have_the_entries_that_a_review_needs(clean: Project) -> None:
    metrics = json.loads(clean.read("reports/scores.json"))
    steps = metrics["training"]
    assert steps["baseline_steps"] == steps["student_steps"] > 0
    assert "<h2>Optimisation</h2>" in clean.read("reports/index.html")
    for model in ("student", "baseline", "ensemble", "ensemble_fitted"):
        assert {"top1_error", "nll", "ece"} <= set(metrics[model])
    assert set(metrics["teachers"]) == {"vgg", "resnet", "preact"}
    rivals = {"baseline", "best_teacher", "ensemble", "ensemble_fitted"}
    assert {f"over_{rival}" for rival in rivals} == set(metrics["gain"])
    assert 0 <= metrics["agreement"]["student_ensemble"] <= 100
    assert metrics["cost"]["ensemble_macs"] > metrics["cost"]["student_macs"] > 0
    validation = json.loads(clean.read("reports/validation_scores.json"))
    assert {"student", "ensemble", "teachers", "gain"} <= set(validation)


def test_the_baseline_is_scored_on_the_images_that_it_learnt_and_on_validation(
    clean: Project,
) -> None:
    data = open_prepared(clean.folder / "artifacts/data")
    network = load(clean.folder / "artifacts/baseline").network.eval()
    found = json.loads(clean.read("reports/validation_baseline.json"))
    for split in ("train", "validation"):
        labels, pixels = (
            data.labels(split),
            data.images(split).fetch(torch.arange(data.count(split))),
        )
        images = (pixels.permute(0, 3, 1, 2) / 255 - data.mean[0]) / data.std[0]
        known = labels >= 0
        assert split == "validation" or 0 < known.sum() < len(known)
        wrong = network(images[known]).argmax(1) != labels[known]
        error = 100 * wrong.double().mean().item()
        assert found[split]["baseline"]["top1_error"] == pytest.approx(error, abs=0.006)


def test_advice_needs_no_student(clean: Project) -> None:
    clean.run("rm", "-r", "artifacts/student", "artifacts/predictions")
    done = clean.run("python", "-m", "meal", "advise")
    lines = done.stdout.splitlines()
    assert lines[0].split(":")[0] in {"Distill", "Do not distill", "Collect unlabelled images"}
    card = json.loads(clean.read("reports/dataset.json"))
    assert f"  unlabelled  {card['unlabelled']:,} images" in lines, lines
    assert "stale" not in done.stderr
    clean.run("rm", "reports/validation_baseline.json")
    failed = clean.run("python", "-m", "meal", "advise", check=False)
    assert failed.returncode == 1 and "dvc repro ensemble baseline" in failed.stderr


def test_dvc_compares_a_few_numbers_with_keys_of_their_own(clean: Project) -> None:
    shown = json.loads(clean.run("dvc", "metrics", "show", "--json").stdout)
    files = {file: flat(each["data"]) for file, each in shown[""]["data"].items()}
    assert len(files["reports/metrics.json"]) <= 12
    keys = [key for found in files.values() for key in found]
    assert len(keys) == len(set(keys)) <= 17
    assert {"student.top1_error", "validation.student.top1_error"} <= set(keys)


def flat(values: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in values.items():
        found += flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return found


def test_another_student_re_runs_no_teacher_cache_or_ensemble(clean: Project) -> None:
    ran = clean.stages_run("dvc", "exp", "run", "-S", "student=densenet")
    assert ran == ["configure", "baseline", *AFTER_DISTILL]
    diff = clean.run("dvc", "metrics", "diff").stdout
    for row in ("student.top1_error", "gain.over_baseline", "cost.percent_of_ensemble"):
        assert row in diff, diff
    assert "student" in clean.run("dvc", "params", "diff").stdout


def test_a_seed_re_runs_distillation_and_what_follows(clean: Project) -> None:
    ran = clean.stages_run("dvc", "exp", "run", "-S", "distill.seed=1")
    assert ran == ["configure", *AFTER_DISTILL]


def test_tuning_stops_before_the_test_images(clean: Project) -> None:
    scored = clean.read("reports/scores.json")
    ran = clean.stages_run("dvc", "exp", "run", "distill", "-S", "distill.beta=0.5")
    assert ran == ["configure", "distill"]
    assert clean.read("reports/scores.json") == scored
    assert "validation.json" in clean.run("dvc", "metrics", "diff").stdout


def test_removing_a_teacher_and_adding_it_back_retrains_nothing(clean: Project) -> None:
    ran = clean.stages_run("dvc", "exp", "run", "-S", "teachers=[vgg,resnet]")
    assert ran == ["configure", "ensemble", *AFTER_DISTILL]
    assert not (clean.folder / "artifacts/caches/preact").exists()
    assert not (clean.folder / "reports/training/teachers/preact.csv").exists()
    assert "preact" not in json.loads(clean.read("reports/scores.json"))["teachers"]
    # DVC does not cache runs of `report`: its page is neither metric nor plot, and is in git.
    back = clean.stages_run("dvc", "exp", "run", "-S", "teachers=[vgg,resnet,preact]")
    assert back == ["report"]
    assert (clean.folder / "artifacts/caches/preact/views/00000.npy").exists()
    assert (clean.folder / "reports/training/teachers/preact.csv").exists()


def test_adding_a_teacher_trains_and_caches_only_that_one(clean: Project) -> None:
    ran = clean.stages_run("dvc", "exp", "run", "-S", "teachers=[vgg,resnet,preact,mobilenet]")
    assert ran[0] == "configure"
    assert sorted(ran[1:3]) == ["cache@mobilenet", "teacher@mobilenet"]
    assert ran[3:] == ["ensemble", *AFTER_DISTILL]


def test_runtime_settings_re_run_nothing(clean: Project) -> None:
    assert clean.stages_run("dvc", "exp", "run", "-S", "runtime.device=cpu") == ["configure"]


def test_a_change_to_evaluation_trains_nothing(clean: Project) -> None:
    path = clean.folder / "meal/evaluation/costs.py"
    path.write_text(path.read_text() + "\n# a comment\n")
    assert clean.stages_run("dvc", "repro") == ["evaluate", "report", "export"]


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("student=nope", "student='nope'"),
        ("teachers=[vgg,ghost]", "teachers='ghost'"),
        ("teachers=[vgg,vgg]", "vgg is repeated"),
        ("teachers=[]", "teachers=[]"),
        ("distill.epochs=-1", "distill.epochs=-1"),
        ("distill.lr=abc", "distill.lr='abc'"),
        ("+distill.speed=3", "distill.speed: unknown key"),
    ],
)
def test_bad_input_trains_and_deletes_nothing(
    assignment: str, message: str, clean: Project
) -> None:
    before = clean.read("artifacts/student/network.json")
    result = clean.run("dvc", "exp", "run", "-S", assignment, check=False)
    assert result.returncode != 0
    lines = [line for line in (result.stdout + result.stderr).splitlines() if message in line]
    assert len(lines) == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert clean.read("artifacts/student/network.json") == before
    clean.run("git", "checkout", "-q", "-f", "main")
    assert clean.stages_run("dvc", "repro") == []


def test_training_curves_are_drawn(clean: Project) -> None:
    output = clean.run("dvc", "plots", "show").stdout
    assert "index.html" in output
    html = clean.read("dvc_plots/index.html")
    for column in ("similarity", "discriminator_accuracy", "validation_top1_error"):
        assert column in html
    assert "teacher vgg" in html


def test_a_fresh_clone_shows_whether_the_lock_is_stale(clean: Project) -> None:
    clone = Project(clean.folder.parent / "clone")
    clean.run("git", "clone", "-q", str(clean.folder), str(clone.folder))
    dry = ("dvc", "repro", "--dry", "--allow-missing")
    assert clone.stages_run(*dry) == []
    path = clone.folder / "meal/distill/similarity.py"
    path.write_text(path.read_text() + "\n# a comment\n")
    stale = clone.run(*dry, check=False)
    assert stale.returncode != 0 or "Running stage" in stale.stdout
    assert "distill" in stale.stdout + stale.stderr


CACHES = [f"cache@{name}" for name in ("preact", "resnet", "vgg")]
STAGES_OF_RECIPES = {
    "meal-blocks": ["configure", "distill"],
    "meal-official-single": ["configure", "cache@vgg", "ensemble", "distill"],
    "meal-official": ["configure", "distill"],
    "meal-v2": ["configure", "distill"],
    "kd": ["configure", "distill"],
    "fkd": ["configure", *CACHES, "ensemble", "distill"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES_OF_RECIPES)
def test_method_recipes_run(name: str, clean: Project) -> None:
    clean.run("cp", "artifacts/baseline/weights.safetensors", "start.safetensors")
    clean.run("python", "-m", "meal", "recipe", name, "--write")
    run = clean.stages_run("dvc", "repro", "distill")
    assert sorted(run) == sorted(STAGES_OF_RECIPES[name])
    scores = json.loads(clean.read("reports/validation_scores.json"))
    assert set(scores) >= {"student", "ensemble", "ensemble_fitted", "teachers", "gain"}


@pytest.mark.slow
def test_the_fashion_mnist_recipe_runs_on_miniature_files(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    write_fashion_mnist(tmp_path / "files", ".gz", train=300)
    params = recipe_params("fashion_mnist")
    params["data"] |= {"root": str(tmp_path / "files"), "labelled": 200}
    params["views"]["count"] = 2
    for section in ("teaching", "distill"):
        params[section].update(epochs=1, warmup_epochs=0)
    (project.folder / "params.yaml").write_text(yaml.safe_dump(params))
    assert project.stages_run("dvc", "repro")[-2:] == ["report", "export"]
    table = project.run("python", "-m", "meal", "results").stdout
    assert table.startswith("Fashion-MNIST, 200 labels (180 for training, 20 for validation), ")
    assert "student, distilled" in table


@pytest.mark.slow
def test_re_running_every_stage_gives_the_same_bytes(clean: Project) -> None:
    before = clean.read("dvc.lock")
    assert len(clean.stages_run("dvc", "repro", "--force")) == len(ALL)
    assert clean.read("dvc.lock") == before
    assert clean.run("git", "status", "--porcelain").stdout == ""
