"""A real DVC project in a real git repository: the repository's own files with tiny parameters."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

# Imported by every Python process of the first run, to record which modules each stage loads.
RECORDER = """
import atexit, os, sys
def record():
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if main is not None and main.name.startswith("stages."):
        files = [getattr(m, "__file__", None) for m in list(sys.modules.values())]
        name = "@".join([main.name.removeprefix("stages."), *sys.argv[1:]])
        with open(os.path.join(os.environ["LOADED_MODULES"], name), "w") as note:
            note.write("\\n".join(file for file in files if file))
atexit.register(record)
"""


def tiny_params() -> dict[str, Any]:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["teachers"] = ["vgg", "resnet", "preact"]
    params["networks"]["own"] = {"arch": "networks.example:small_convnet"}
    params["student"] = "resnet"
    for network in params["networks"].values():
        if ":" not in network["arch"]:
            network["width"] = 0.07
    params["views"]["count"] = 2
    params["data"]["labelled"] = 600
    params["distill"].update(blocks=[1, 2, 3], label_weight=0.5)
    params["teaching"].update(epochs=2, warmup_epochs=0)
    params["distill"].update(epochs=2, warmup_epochs=0)
    return params


class Project:
    """A copy of the project in its own folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first_run: list[str] = []
        self.loaded: dict[str, set[str]] = {}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result

    def stages_run(self, *command: str) -> list[str]:
        """Run a DVC command; return the names of the stages that ran, in order."""
        return re.findall(r"Running stage '([^']+)'", self.run(*command).stdout)

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()


def make_project(folder: Path) -> Project:
    folder.mkdir()
    for name in ("meal", "stages", "networks", "recipes"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    (folder / "reports").mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "reports/timings.json"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny_params(), sort_keys=False))
    project = Project(folder)
    project.run("git", "init", "-q", "-b", "main")
    project.run("git", "config", "user.email", "test@example.com")
    project.run("git", "config", "user.name", "test")
    project.run("dvc", "init", "-q")
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    shutil.copytree(ROOT / ".dvc" / "plots", folder / ".dvc" / "plots")
    project.commit("start")
    return project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project that has been run once and committed, in a folder with a space in its name."""
    made = make_project(tmp_path_factory.mktemp("projects") / "a project")
    recorder, notes = (tmp_path_factory.mktemp(name) for name in ("recorder", "notes"))
    (recorder / "sitecustomize.py").write_text(RECORDER)
    usual = dict(made.environment)
    made.environment |= {"PYTHONPATH": str(recorder), "LOADED_MODULES": str(notes)}
    made.first_run = made.stages_run("dvc", "repro")
    made.environment = usual
    made.loaded = {
        note.name: {
            str(Path(file).relative_to(made.folder))
            for file in note.read_text().splitlines()
            if Path(file).is_relative_to(made.folder)
        }
        for note in notes.iterdir()
    }
    made.commit("first run")
    yield made


@pytest.fixture
def clean(project: Project) -> Iterator[Project]:
    """The project at its first commit, with the outputs of that commit."""
    project.run("git", "checkout", "-q", "-f", "main")
    project.run("git", "clean", "-fdq")
    project.run("dvc", "checkout", "-q", "-f")
    yield project
