"""The exported folder as others get it: through DVC, and in a small environment."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meal.data.prepared import open_prepared
from meal.evaluation.predictions import Predictions
from tests.conftest import ROOT
from tests.soak.common import hashes, make_folder_project
from tests.stages.conftest import Project

EXPORT = "artifacts/export"


def test_dvc_gets_and_pulls_the_folder(clean: Project, tmp_path: Path) -> None:
    expected = hashes(clean.folder / "artifacts", ("export",))
    assert len(expected) == 4
    clean.run("dvc", "get", str(clean.folder), EXPORT, "-o", str(tmp_path / "got" / "export"))
    assert hashes(tmp_path / "got", ("export",)) == expected
    clean.run("git", "tag", "-a", "student@v1.0.0", "-m", "first")
    named = str(tmp_path / "named" / "export")
    clean.run("dvc", "artifacts", "get", str(clean.folder), "student", "-o", named)
    clean.run("git", "tag", "-d", "student@v1.0.0")
    assert hashes(tmp_path / "named", ("export",)) == expected
    clean.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    clean.run("dvc", "push", "-q", EXPORT)
    clean.run("git", "commit", "-qam", "a remote")
    clone = Project(tmp_path / "clone")
    clean.run("git", "clone", "-q", str(clean.folder), str(clone.folder))
    clone.run("dvc", "pull", "-q", EXPORT)
    assert hashes(clone.folder / "artifacts", ("export",)) == expected
    assert not (clone.folder / "artifacts/student").exists()  # nothing else is needed
    clean.run("git", "reset", "-q", "--hard", "HEAD~1")
    image = open_prepared(clean.folder / "artifacts/data").images("test").fetch(torch.arange(1))
    Image.fromarray(image[0, :, :, 0].numpy()).save(clone.folder / "image.png")
    assert "%" in clone.run("python", "-m", "meal", "predict", "image.png").stdout


def test_the_wheel_offers_the_command(clean: Project) -> None:
    shown = clean.run("meal", "--version").stdout
    assert shown.startswith("meal ")
    assert "--install-completion" in clean.run("meal", "--help").stdout


@pytest.mark.slow
def test_predictions_are_those_of_evaluate_on_the_same_files(tmp_path: Path) -> None:
    own = make_folder_project(tmp_path / "project")
    own.run("dvc", "repro")
    data = open_prepared(own.folder / "artifacts/data", str(tmp_path / "images"))
    store = data.images("test")
    paths = [str(store.path(row)) for row in range(len(store))]  # type: ignore[attr-defined]
    predicted = Predictions.load(own.folder / "artifacts/predictions").models["student"]
    command = ("python", "-m", "meal", "predict", "--format", "json", "--top", "1", *paths)
    rows = json.loads(own.run(*command).stdout)
    names = data.manifest["classes"]
    assert [row["predictions"][0]["class"] for row in rows] == [
        names[k] for k in predicted.predicted
    ]
    found = [row["predictions"][0]["probability"] for row in rows]
    assert np.allclose(found, predicted.confidence, atol=1e-5)


@pytest.mark.slow
def test_ten_thousand_images_take_little_memory(clean: Project, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10_000, 16, 16)).astype(np.uint8)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "images" / f"{number:05}.png")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    command = ("python", "-m", "meal", "predict", "--format", "csv", "--top", "1")
    result = clean.run(*command, str(tmp_path / "images"))
    assert len(result.stdout.splitlines()) == 10_001
    assert result.stderr == ""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak < 400 * 1024 or peak == before  # KiB


@pytest.mark.slow
def test_a_small_environment_is_enough_to_predict(clean: Project, tmp_path: Path) -> None:
    """A wheel with its extra `predict`, in a fresh environment, stays under 300 MB."""
    source = tmp_path / "source"  # a build leaves folders behind
    source.mkdir()
    for name in ("meal", "stages"):
        shutil.copytree(ROOT / name, source / name)
    shutil.copy(ROOT / "pyproject.toml", source)
    build = ("pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(tmp_path), str(source))
    subprocess.run([sys.executable, "-m", *build], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    constraints = ("--constraint", str(ROOT / "constraints.txt"))
    install = ("pip", "install", "-q", *constraints, f"meal[predict] @ {wheel.as_uri()}")
    subprocess.run([python, "-m", *install], check=True)
    size = sum(path.lstat().st_size for path in (tmp_path / "env").rglob("*"))
    assert size < 300e6, f"{size / 1e6:.0f} MB"
    image = open_prepared(clean.folder / "artifacts/data").images("test").fetch(torch.arange(1))
    Image.fromarray(image[0, :, :, 0].numpy()).save(tmp_path / "image.png")
    meal = str(tmp_path / "env" / "bin" / "meal")
    command = (meal, "predict", str(tmp_path / "image.png"), "--model", str(clean.folder / EXPORT))
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "%" in answer.stdout
    refused = subprocess.run(
        [meal, "results"], cwd=clean.folder, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert (
        "is not installed; in this project's folder, run: pip install '.[pipeline]'"
        in refused.stderr
    )
