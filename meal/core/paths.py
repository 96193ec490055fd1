"""Paths: the project's files and folders, and the folders that the user names."""

from __future__ import annotations

import os
from pathlib import Path

from meal.core.errors import UserError

# Relative to the project: stages run in its root folder.
PARAMS = Path("params.yaml")
RECIPES = Path("recipes")
CHECKPOINTS = Path(".checkpoints")

ARTIFACTS = Path("artifacts")
CONFIG = ARTIFACTS / "config"
DATA = ARTIFACTS / "data"
TEACHERS = ARTIFACTS / "teachers"
CACHES = ARTIFACTS / "caches"
ENSEMBLE = ARTIFACTS / "ensemble"
BASELINE = ARTIFACTS / "baseline"
STUDENT = ARTIFACTS / "student"
PREDICTIONS = ARTIFACTS / "predictions"
EXPORT = ARTIFACTS / "export"
SIGNIFICANCE = PREDICTIONS / "significance.json"

REPORTS = Path("reports")
TRAINING = REPORTS / "training"
FIGURES = REPORTS / "figures"
TIMINGS = REPORTS / "timings.json"
# The headline numbers, which DVC compares, and all scores, from which tables are made.
METRICS, SCORES = REPORTS / "metrics.json", REPORTS / "scores.json"
VALIDATION = REPORTS / "validation.json"
VALIDATION_SCORES = REPORTS / "validation_scores.json"
VALIDATION_BASELINE = REPORTS / "validation_baseline.json"
DATA_CARD = REPORTS / "dataset.json"
CONTACT_SHEET = REPORTS / "dataset.png"


def user_folder() -> Path:
    """The download folder shared by all experiments: `MEAL_DATA`, or one in the user's cache."""
    return named_folder("MEAL_DATA", os.environ.get("MEAL_DATA") or "~/.cache/meal/data")


def named_folder(key: str, name: str) -> Path:
    """The absolute path of a folder that the user names under `key`.

    A relative path is relative to the project, even in the copies below `.dvc/tmp/exps` in which
    DVC runs experiments.

    Raises:
        UserError: if the path starts with `~NAME` and there is no such user.
    """
    if "\0" in name:
        raise UserError(f"{key}={name!r}: a path cannot contain a NUL character")
    try:
        folder = Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"{key}={name!r}: unknown user; write the full path") from None
    return project_root() / folder


def project_root() -> Path:
    """The project: this folder, or in one of DVC's copies for experiments, what it is a copy of."""
    return Path(str(Path.cwd()).partition(f"{os.sep}.dvc{os.sep}tmp{os.sep}exps{os.sep}")[0])
