"""A cache that several processes build at once and `dvc repro` puts together."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import meal.targets
from tests.conftest import ROOT
from tests.stages.conftest import Project


@pytest.mark.slow
def test_processes_share_a_cache_and_dvc_puts_it_together(clean: Project) -> None:
    before = clean.read("dvc.lock")
    for name in ("views/00001.npy", "manifest.json"):
        (clean.folder / "artifacts/caches/vgg" / name).unlink()
    environment = {**clean.environment, "PYTHONPATH": str(clean.folder)}
    running = [
        subprocess.Popen(
            ["bash", ROOT / "examples/slurm_cache.sh", "vgg"],
            cwd=clean.folder,
            env={**environment, "SLURM_ARRAY_TASK_ID": str(which), "SLURM_ARRAY_TASK_COUNT": "3"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for which in (1, 2, 3)
    ]
    for which, process in enumerate(running, start=1):
        output = process.communicate()[0]
        assert process.returncode == 0, output
        assert f"part {which}/3 of the cache is done; once all parts are: dvc" in output
    result = clean.run("dvc", "repro", "--force", "--single-item", "cache@vgg")
    assert "resumed after" in result.stdout
    assert clean.read("dvc.lock") == before


@pytest.mark.slow
def test_a_view_can_be_pulled_without_the_others(clean: Project, tmp_path: Path) -> None:
    """DVC tracks the cache as one folder, but fetches single files of it."""
    clean.run("dvc", "remote", "add", "-d", "-f", "shared", str(tmp_path / "remote"))
    clean.run("dvc", "push", "-q", "artifacts/caches/vgg")
    other = tmp_path / "other"
    clean.run("git", "clone", "-q", str(clean.folder), str(other))
    files = [f"artifacts/caches/vgg/{name}" for name in ("manifest.json", "views/00001.npy")]
    files.append("artifacts/caches/vgg/test_logits.npy")
    dvc = Path(sys.executable).parent / "dvc"
    for command in (["remote", "add", "-d", "shared", str(tmp_path / "remote")], ["pull", *files]):
        subprocess.run([dvc, *command, "-q"], cwd=other, env=clean.environment, check=True)
    targets = meal.targets.open(other / "artifacts/caches/vgg")
    assert targets.present == [1]
    assert len(targets(1, slice(0, 5)).logits) == 5


@pytest.mark.slow
def test_a_clone_distills_from_the_teachers_of_a_remote(clean: Project, tmp_path: Path) -> None:
    clean.run("dvc", "remote", "add", "-d", "-f", "shared", str(tmp_path / "remote"))
    clean.run("git", "commit", "-qam", "a remote")
    clean.run("dvc", "push", "-q")
    clone = Project(tmp_path / "clone")
    clean.run("git", "clone", "-q", str(clean.folder), str(clone.folder))
    clone.run("dvc", "pull", "-q", "prepare", "ensemble")
    run = clone.run("dvc", "exp", "run", "--pull", "--allow-missing", "-S", "distill.seed=7")
    ran = re.findall(r"Running stage '([^']+)'", run.stdout)
    assert ran == ["configure", "distill", "evaluate", "report", "export"]
    assert not list(clone.folder.glob("artifacts/teachers/*/weights.safetensors"))
