"""Two revisions compared, and a change reviewed, as a person does: on a real DVC project."""

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
    """A branch with another student, run and committed."""
    clean.run("git", "checkout", "-q", "-B", "change")
    clean.run("dvc", "exp", "run", "-S", "distill.seed=3", "-S", "student=vgg")
    clean.commit("another student")
    return clean


def numbers(text: str, heading: str) -> str:
    """The part of a page below a heading."""
    return re.split(r"\n#+ ", text.split(heading, 1)[1])[0]


def test_two_revisions_are_compared_image_by_image(changed: Project) -> None:
    text = changed.run("python", "-m", "meal", "compare", "main", "change").stdout
    for heading in ("# change against main", "## Results of main", "## Results of change"):
        assert heading in text, text
    assert text.count("| student, distilled") == 2
    errors = [
        json.loads(changed.run("git", "show", f"{rev}:reports/metrics.json").stdout)["student"]
        for rev in ("main", "change")
    ]
    part = numbers(text, "## Significance: the student, change minus main")
    row = next(line for line in part.splitlines() if "top-1 error" in line)
    difference = float(row.split("|")[2])
    assert difference == pytest.approx(errors[1]["top1_error"] - errors[0]["top1_error"], abs=0.02)
    assert "McNemar's test: change alone is right on" in part
    assert "### Images on which they disagree most" in text and "| test image |" in text.replace(
        "  ", ""
    )
    parameters = numbers(text, "## Parameters")
    assert "student" in parameters and "distill.seed" in parameters and "vgg" in parameters
    assert "epochs" not in parameters


def test_the_workspace_is_the_other_side_by_default(changed: Project) -> None:
    text = changed.run("python", "-m", "meal", "compare", "main").stdout
    assert "# workspace against main" in text and "McNemar's test: workspace alone" in text
    same = changed.run("python", "-m", "meal", "compare", "change").stdout
    assert "inside the noise" in same and "None: every answer is the same." in same
    assert "No change." in numbers(same, "## Parameters")


def test_another_model_may_be_compared_and_an_unknown_one_is_an_error(changed: Project) -> None:
    command = ("python", "-m", "meal", "compare", "main", "change", "--model")
    ensembles = changed.run(*command, "ensemble").stdout
    assert "+0.0000 to +0.0000" in numbers(ensembles, "## Significance: the ensemble")
    for wrong in ("nobody", "vote"):
        result = changed.run(*command, wrong, check=False)
        assert result.returncode == 1 and f"error: --model {wrong}: change has" in result.stderr


def test_experiments_of_several_seeds_resample_seeds_too(clean: Project) -> None:
    names = {}
    for selection in ("random", "mean"):
        for seed in (1, 2):
            name = names[selection, seed] = f"{selection}-{seed}"
            flags = ["-S", f"distill.selection={selection}", "-S", f"distill.seed={seed}"]
            clean.run("dvc", "exp", "run", "--name", name, *flags)
    command = ("python", "-m", "meal", "compare")
    text = clean.run(*command, "random-1,random-2", "mean-1,mean-2").stdout
    assert "2 pairs of runs; images and seeds resampled." in text
    assert "McNemar" not in text  # it is for pairs of single models
    assert "distill.selection" in numbers(text, "## Parameters")
    result = clean.run(
        "python", "-m", "meal", "compare", "random-1,random-2", "mean-1", check=False
    )
    assert result.returncode == 1 and "compared pair by pair" in result.stderr
    twice = clean.run(*command, "mean-1,mean-1", "mean-1,mean-2", check=False)
    assert twice.returncode == 1 and "a run is named twice" in twice.stderr
    mixed = clean.run(*command, "random-1,random-2", "mean-2,mean-1").stdout
    assert "Pair 1:" in numbers(mixed, "## Parameters")  # their seeds differ
    unknown = clean.run(*command, "nowhere", check=False)
    assert unknown.returncode == 1 and "error: 'nowhere': no commit, branch or" in unknown.stderr


def test_a_run_that_was_not_scored_is_not_compared(clean: Project) -> None:
    """An experiment to `distill`, or parameters that never ran: the old answers are not theirs."""
    clean.run("dvc", "exp", "run", "--name", "tuned", "distill", "-S", "distill.seed=9")
    result = clean.run("python", "-m", "meal", "compare", "main", "tuned", check=False)
    assert result.returncode == 1
    assert "error: tuned has not run evaluate since what is before changed" in result.stderr
    clean.run("python", "-m", "meal", "review", "main")
    assert "**These results are not of this change**: workspace" in clean.read("review.md")
    clean.run("git", "checkout", "-q", "-f", "main")
    clean.run("dvc", "checkout", "-q", "-f")
    params = clean.read("params.yaml")
    path = clean.folder / "params.yaml"
    path.write_text(params.replace("deterministic: true", "deterministic: false"))
    assert clean.run("python", "-m", "meal", "compare", "main", check=False).returncode == 0
    path.write_text(params.replace("beta: 1.0", "beta: 0.5"))
    result = clean.run("python", "-m", "meal", "compare", "main", check=False)
    assert "error: workspace has not run since its params.yaml was changed" in result.stderr


def test_answers_of_another_run_are_not_taken_for_this_ones(changed: Project) -> None:
    changed.run("git", "checkout", "-q", "main")  # and no dvc checkout
    text = changed.run("python", "-m", "meal", "compare", "change").stdout
    assert "The predictions of workspace are not here, or another run's are" in text
    changed.run("dvc", "checkout", "-q", "-f")
    assert "McNemar's test" in changed.run("python", "-m", "meal", "compare", "change").stdout


def test_a_remote_brings_predictions_also_of_older_revisions_and_its_absence_is_no_fault(
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
    changed.commit("a remote, younger than main")
    clone = Project(tmp_path / "clone")
    changed.run("git", "clone", "-q", "--branch", "change", str(changed.folder), str(clone.folder))
    command = ("python", "-m", "meal", "compare", "origin/main", "change")
    assert "McNemar's test: change alone" in clone.run(*command).stdout
    shutil.rmtree(clone.folder / ".dvc" / "cache", ignore_errors=True)
    # A kind of remote whose library is not installed.
    clone.run("dvc", "remote", "modify", "--local", "store", "url", "s3://bucket/path")
    assert "The predictions of origin/main, change are not here" in clone.run(*command).stdout


def test_a_review_names_what_it_compares_with(changed: Project) -> None:
    changed.run("git", "checkout", "-q", "main")
    changed.run("dvc", "checkout", "-q", "-f")
    changed.run("dvc", "exp", "run", "--name", "other", "-S", "distill.seed=11")
    changed.run("git", "checkout", "-q", "-f", "main")
    changed.run("dvc", "checkout", "-q", "-f")
    changed.run("python", "-m", "meal", "review", "other")  # an experiment: as it is
    assert "distill.seed" in numbers(changed.read("review.md"), "## Parameters")
    start = changed.run("git", "rev-parse", "--short=7", "main").stdout.strip()
    changed.run("python", "-m", "meal", "review", "change")  # a branch ahead: where it left
    text = changed.read("review.md")
    assert text.startswith(f"# Review against change, from {start} on")
    assert f"workspace minus {start}" in text and "No change." in numbers(text, "## Parameters")


def test_a_clone_without_the_data_is_reviewed_by_the_workflow_itself(
    changed: Project, tmp_path: Path
) -> None:
    """The workflow's own commands, in a clone that has nothing but git, DVC and the project."""
    changed.run("git", "checkout", "-q", "main")
    workflow = yaml.safe_load((ROOT / ".github/workflows/review.yml").read_text())
    assert "pull_request" in workflow[True]  # YAML 1.1 reads `on` as true
    steps = workflow["jobs"]["review"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    clone = Project(tmp_path / "clone")
    changed.run("git", "clone", "-q", "--branch", "change", str(changed.folder), str(clone.folder))
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, clone.folder / name)
        os.utime(clone.folder / name, (0, 0))  # older than the environment: nothing is installed
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
    assert re.search("The predictions of [0-9a-f]{7}, workspace are not here", text)
    assert "top-1 error (points)" in numbers(text, "## Significance")
    assert (
        "https://github.example/someone/meal/raw/0123456789/reports/figures/error_cost.svg" in text
    )


def test_a_review_with_the_data_compares_image_by_image(changed: Project) -> None:
    shutil.copy(ROOT / "Makefile", changed.folder / "Makefile")
    changed.run("python", "-m", "meal", "review", "main")
    text = changed.read("review.md")
    assert "Student against ensemble:" in text and "McNemar's test: workspace alone" in text
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (changed.folder / picture).is_file()
    assert text.count("![") == 3
    result = changed.run("python", "-m", "meal", "review", "nowhere", check=False)
    assert result.returncode == 1 and "error: BASE=nowhere" in result.stderr


def test_timings_are_measured_outside_of_the_pipeline(clean: Project) -> None:
    table = clean.run("python", "-m", "meal", "timings", "--repeats", "3").stdout
    assert "| student" in table and "| ensemble" in table
    timings = json.loads(clean.read("reports/timings.json"))
    assert timings["models"]["student"]["latency_ratio"] == 1.0
    assert "commit" in timings["machine"]
    assert clean.stages_run("dvc", "repro") == []
