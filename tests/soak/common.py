"""What the soaks share: tallies, hashes of outputs, and the projects they attack."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from meal.core.digests import sha256
from tests.files import write_classes
from tests.stages.conftest import Project, make_project, tiny_params


@dataclass
class Tally:
    """Attempts, and what became of them.

    Attributes:
        kind: what was attempted.
        attempts: how often.
        noticed: killed runs, or damage reported with the name of the file.
        resumed: runs that went on where a killed one had stopped.
        differing: a line for each result that is not that of an undisturbed run.
    """

    kind: str
    attempts: int = 0
    noticed: int = 0
    resumed: int = 0
    differing: list[str] = field(default_factory=list)


def hashes(folder: Path, names: tuple[str, ...] = ("artifacts", "reports")) -> dict[str, str]:
    """The SHA-256 of each file below the named files and folders, by its path."""
    found: dict[str, str] = {}
    for name in names:
        path = folder / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        found |= {str(file.relative_to(folder)): sha256(file) for file in files if file.is_file()}
    return found


def different(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """The names of the files that differ."""
    return sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))


def make_folder_project(folder: Path) -> Project:
    """A project whose images are files, which worker processes decode."""
    write_classes(folder.with_name("images"), {"cat": 60, "dog": 60, "eel": 60}, size=(24, 20))
    project = make_project(folder)
    params = tiny_params()
    params["dataset"] = "folder"
    params["data"].update(root=str(folder.with_name("images")), image_size=16, store="index")
    params["data"].update(labelled=100)  # of 144 training images
    params["views"].update(crop="resized")
    params["distill"].update(batch_size=16)
    params["runtime"]["workers"] = 2
    (project.folder / "params.yaml").write_text(yaml.safe_dump(params))
    project.commit("a folder of images")
    return project


def set_seed(project: Project, seed: int) -> None:
    """Give the student another seed, so that `dvc repro` distills, evaluates and reports."""
    path = project.folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["distill"]["seed"] = seed
    path.write_text(yaml.safe_dump(params))
