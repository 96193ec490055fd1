"""Comparing two revisions and reviewing a change on a real DVC project, as a user does."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.stages.conftest import Project

pytestmark = pytest.mark.slow


@pytest.fixture
def changed(clean: Project) -> Project:
    """A branch with a different student, run and committed."""
    clean.run("git", "checkout", "-q", "-B", "change")
    clean.run("dvc", "exp", "run", "-S", "distill.seed=3", "-S", "student=vgg")
    clean.commit("another student")
    return clean


def numbers(text: str, heading: str) -> str:
    """The part of a text below a heading."""
    return re.split(r"\n#+ ", text.split(heading, 1)[1])[0]


def test_two_revisions_are_compared_image_by_image(changed: Project) -> None:
    text = changed.run("python", "-m", "meal", "compare", "main", "change").stdout
    for heading in ("# change against main", "## Results of main", "## Results of change"):
        assert heading in text, text
    assert text.count("| student, distilled") == 2
    errors = [
        json.loads(changed.run("git", "show", f"{rev}:reports/scores.json").stdout)["student"]
        for rev in ("main", "change")
    ]
    part = numbers(text, "## Significance: the student, change minus main")
    row = next(line for line in part.splitlines() if "top-1 error" in line)
    difference = float(row.split("|")[2])
    assert difference == pytest.approx(errors[1]["top1_error"] - errors[0]["top1_error"], abs=0.02)
    assert "McNemar's test: only change is correct on" in part
    assert "### Images on which they disagree most" in text and "| test image |" in text.replace(
        "  ", ""
    )
    parameters = numbers(text, "## Parameters")
    assert "student" in parameters and "distill.seed" in parameters and "vgg" in parameters
    assert "epochs" not in parameters


def test_the_second_side_is_the_workspace_by_default(changed: Project) -> None:
    text = changed.run("python", "-m", "meal", "compare", "main").stdout
    assert "# workspace against main" in text and "McNemar's test: only workspace" in text
    same = changed.run("python", "-m", "meal", "compare", "change").stdout
    assert "inside the noise" in same and "None: all predictions agree." in same
    assert "No change." in numbers(same, "## Parameters")


def test_another_model_can_be_compared_and_an_unknown_one_is_an_error(changed: Project) -> None:
    command = ("python", "-m", "meal", "compare", "main", "change", "--model")
    ensembles = changed.run(*command, "ensemble").stdout
    assert "+0.0000 to +0.0000" in numbers(ensembles, "## Significance: the ensemble")
    for wrong in ("nobody", "vote"):
        result = changed.run(*command, wrong, check=False)
        assert result.returncode == 1 and f"error: --model {wrong}: change has" in result.stderr


def test_with_several_seeds_the_intervals_span_them_too(clean: Project) -> None:
    names = {}
    for selection in ("random", "mean"):
        for seed in (1, 2):
            name = names[selection, seed] = f"{selection}-{seed}"
            flags = ["-S", f"distill.selection={selection}", "-S", f"distill.seed={seed}"]
            clean.run("dvc", "exp", "run", "--name", name, *flags)
    command = ("python", "-m", "meal", "compare")
    text = clean.run(*command, "random-1,random-2", "mean-1,mean-2").stdout
    assert "2 runs on each side, paired by seed; the intervals span images and seeds." in text
    assert "McNemar" not in text  # the test is for single models
    assert "distill.selection" in numbers(text, "## Parameters")
    result = clean.run(
        "python", "-m", "meal", "compare", "random-1,random-2", "mean-1", check=False
    )
    assert result.returncode == 1 and "name as many of each" in result.stderr
    twice = clean.run(*command, "mean-1,mean-1", "mean-1,mean-2", check=False)
    assert twice.returncode == 1 and "a run is named twice" in twice.stderr
    mixed = clean.run(*command, "random-1,random-2", "mean-2,mean-1").stdout
    assert "Pair 1:" in numbers(mixed, "## Parameters")  # their seeds differ
    assert "2 runs on each side; the intervals" in mixed
    unknown = clean.run(*command, "nowhere", check=False)
    assert unknown.returncode == 1 and "error: 'nowhere': no commit, branch or" in unknown.stderr


def test_a_stale_run_is_not_compared(clean: Project) -> None:
    """After an experiment up to `distill`, or new parameters, old predictions are another run's."""
    clean.run("dvc", "exp", "run", "--name", "tuned", "distill", "-S", "distill.seed=9")
    result = clean.run("python", "-m", "meal", "compare", "main", "tuned", check=False)
    assert result.returncode == 1
    assert "error: tuned: evaluate is stale: inputs changed" in result.stderr
    shown = clean.run("python", "-m", "meal", "results")
    assert "warning: this run: evaluate is stale: inputs changed; run: dvc repro" in shown.stderr
    clean.run("python", "-m", "meal", "review", "main")
    assert "**These results are stale**: workspace" in clean.read("review.md")
    clean.run("git", "checkout", "-q", "-f", "main")
    clean.run("dvc", "checkout", "-q", "-f")
    assert "warning" not in clean.run("python", "-m", "meal", "results").stderr
    params = clean.read("params.yaml")
    path = clean.folder / "params.yaml"
    path.write_text(params.replace("deterministic: true", "deterministic: false"))
    assert clean.run("python", "-m", "meal", "compare", "main", check=False).returncode == 0
    path.write_text(params.replace("beta: 0.1", "beta: 0.5"))
    result = clean.run("python", "-m", "meal", "compare", "main", check=False)
    assert "error: workspace is stale: its params.yaml changed after the run" in result.stderr


@pytest.mark.parametrize("stage", ["distill", "configure"])
def test_a_lock_without_a_stage_is_stale(stage: str, clean: Project) -> None:
    path = clean.folder / "dvc.lock"
    lock = yaml.safe_load(path.read_text())
    del lock["stages"][stage]
    path.write_text(yaml.safe_dump(lock))
    result = clean.run("python", "-m", "meal", "compare", "main", check=False)
    assert f"workspace is stale: its dvc.lock has no run of {stage}" in result.stderr


def test_a_run_that_is_only_partly_repeated_is_stale(clean: Project) -> None:
    """Slices and caches lie inside folders that DVC hashes as one."""
    path = clean.folder / "params.yaml"
    params = clean.read("params.yaml")
    path.write_text(params.replace("beta: 0.1", "beta: 0.5"))
    clean.run("dvc", "repro", "baseline")
    result = clean.run("python", "-m", "meal", "compare", "main", check=False)
    assert "error: workspace: distill is stale: inputs changed" in result.stderr
    path.write_text(params.replace("width: 0.07\n    seed: 0", "width: 0.07\n    seed: 5", 1))
    clean.run("dvc", "repro", "cache@vgg")
    result = clean.run("python", "-m", "meal", "compare", "main", check=False)
    assert "error: workspace: ensemble is stale: inputs changed" in result.stderr
    clean.run("dvc", "repro")
    assert clean.run("python", "-m", "meal", "compare", "main").returncode == 0


def test_without_the_lists_of_files_nobody_can_tell(clean: Project, tmp_path: Path) -> None:
    clone = Project(tmp_path / "clone")
    clean.run("git", "clone", "-q", str(clean.folder), str(clone.folder))
    clone.run("git", "checkout", "-q", "main")
    text = clone.run("python", "-m", "meal", "compare", "HEAD").stdout
    assert "**Cannot tell whether HEAD is stale**" in text
    assert "artifacts/config" in text and "dvc fetch" in text


def test_predictions_of_another_run_are_not_used(changed: Project) -> None:
    changed.run("git", "checkout", "-q", "main")  # and no dvc checkout
    text = changed.run("python", "-m", "meal", "compare", "change").stdout
    assert "The predictions of workspace are missing or belong to another run" in text
    changed.run("dvc", "checkout", "-q", "-f")
    assert "McNemar's test" in changed.run("python", "-m", "meal", "compare", "change").stdout


def test_a_remote_provides_predictions_even_of_older_revisions_and_may_be_missing(
    changed: Project, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    for branch in ("main", "change"):
        changed.run("git", "checkout", "-q", branch)
        changed.run("dvc", "checkout", "-q", "-f")
        changed.run("dvc", "remote", "add", "-f", "-d", "store", str(store))
        changed.run("dvc", "push", "-q")
        if branch == "main":
            changed.run("git", "checkout", "-q", ".dvc/config")
    changed.commit("a remote that main does not have")
    clone = Project(tmp_path / "clone")
    changed.run("git", "clone", "-q", "--branch", "change", str(changed.folder), str(clone.folder))
    command = ("python", "-m", "meal", "compare", "origin/main", "change")
    assert "McNemar's test: only change" in clone.run(*command).stdout
    shutil.rmtree(clone.folder / ".dvc" / "cache", ignore_errors=True)
    # The library for this kind of remote is not installed.
    clone.run("dvc", "remote", "modify", "--local", "store", "url", "s3://bucket/path")
    assert "The predictions of origin/main, change are missing" in clone.run(*command).stdout


def test_a_review_names_the_revision_it_compares_with(changed: Project) -> None:
    changed.run("git", "checkout", "-q", "main")
    changed.run("dvc", "checkout", "-q", "-f")
    changed.run("dvc", "exp", "run", "--name", "other", "-S", "distill.seed=11")
    changed.run("git", "checkout", "-q", "-f", "main")
    changed.run("dvc", "checkout", "-q", "-f")
    changed.run("python", "-m", "meal", "review", "other")  # an experiment: compared as it is
    assert "distill.seed" in numbers(changed.read("review.md"), "## Parameters")
    start = changed.run("git", "rev-parse", "--short=7", "main").stdout.strip()
    changed.run("python", "-m", "meal", "review", "change")  # a branch ahead: from the merge base
    text = changed.read("review.md")
    assert text.startswith(f"# Review against change, since {start}")
    assert f"workspace minus {start}" in text and "No change." in numbers(text, "## Parameters")


def test_the_workflow_can_review_a_clone_without_the_data(changed: Project, tmp_path: Path) -> None:
    """Run the workflow's own commands in a clone without any artifacts."""
    changed.run("git", "checkout", "-q", "main")
    workflow = yaml.safe_load((ROOT / ".github/workflows/review.yml").read_text())
    assert "pull_request" in workflow[True]  # YAML 1.1 reads `on` as true
    steps = workflow["jobs"]["review"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    clone = Project(tmp_path / "clone")
    changed.run("git", "clone", "-q", "--branch", "change", str(changed.folder), str(clone.folder))
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, clone.folder / name)
        os.utime(clone.folder / name, (0, 0))  # older than the environment, so nothing is installed
    (clone.folder / ".venv").symlink_to(sys.prefix)
    assert not (clone.folder / "artifacts").exists()
    summary = tmp_path / "summary.md"
    given = {
        "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_BASE_REF": "main",
        "GITHUB_SERVER_URL": "https://github.example", "GITHUB_REPOSITORY": "someone/meal",
        "HEAD_SHA": "0123456789",
    }  # fmt: skip
    clone.environment |= {**given, "PATH": f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}"}
    for command in commands:
        clone.run("bash", "-euo", "pipefail", "-c", command)
    text = summary.read_text()
    assert text.startswith("# Review against origin/main")
    assert "student.top1_error" in numbers(text, "## Metrics")
    assert "distill.seed" in numbers(text, "## Parameters")
    assert re.search("The predictions of [0-9a-f]{7}, workspace are missing", text)
    assert "top-1 error (points)" in numbers(text, "## Significance")
    assert (
        "https://github.example/someone/meal/raw/0123456789/reports/figures/error_cost.svg" in text
    )


def test_a_review_with_the_data_compares_image_by_image(changed: Project) -> None:
    shutil.copy(ROOT / "Makefile", changed.folder / "Makefile")
    changed.run("python", "-m", "meal", "review", "main")
    text = changed.read("review.md")
    assert "Student against ensemble:" in text and "McNemar's test: only workspace" in text
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (changed.folder / picture).is_file()
    assert text.count("![") == 3
    result = changed.run("python", "-m", "meal", "review", "nowhere", check=False)
    assert result.returncode == 1 and "error: BASE=nowhere" in result.stderr


def test_another_number_of_threads_is_said(clean: Project) -> None:
    path = clean.folder / "reports/scores.json"
    scores = json.loads(path.read_text())
    ran = scores["run"]
    scores["run"] = {**ran, "threads": ran["threads"] + 6}
    path.write_text(json.dumps(scores))
    words = f"threads {ran['threads']}, now {ran['threads'] + 6}"
    text = clean.run("python", "-m", "meal", "compare", "main").stdout
    assert f"**Computed differently** ({words})" in text and "runtime.threads" in text
    clean.run("python", "-m", "meal", "review", "main")
    assert words in clean.read("review.md")
    shown = clean.run("python", "-m", "meal", "results").stdout
    assert f"with {ran['threads'] + 6} thread(s)" in shown


def test_timings_touch_no_tracked_file_unless_asked(clean: Project) -> None:
    command = ("python", "-m", "meal", "timings", "--repeats", "3")
    table = clean.run(*command).stdout
    for model in ("| student ", "| student, ONNX Runtime", "| ensemble"):
        assert model in table
    assert clean.run("git", "status", "--porcelain").stdout == ""
    assert "<h2>Speed</h2>" not in clean.read("reports/index.html")  # those are of other networks
    clean.run(*command, "--write")
    found = json.loads(clean.read("reports/timings.json"))
    assert found["models"]["student"]["latency_ratio"] == 1.0
    assert {"commit", "threads"} <= set(found["machine"])
    assert clean.stages_run("dvc", "repro") == ["report"]
    assert "<h2>Speed</h2>" in clean.read("reports/index.html")
