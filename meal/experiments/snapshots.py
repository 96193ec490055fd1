"""What a revision or an experiment holds: metrics, and predictions where they are at hand."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import RevError, SCMError, resolve_rev
from dvc_data.index.index import DataIndexError

from meal.evaluation.predictions import Predictions
from meal.files import read_json

METRICS = "reports/metrics.json"
CARD = "reports/dataset.json"
PREDICTIONS = "artifacts/predictions"
WORKSPACE = "workspace"


@dataclass(frozen=True)
class Snapshot:
    """A revision's results.

    Attributes:
        name: as it was asked for.
        revision: its commit; None is the workspace.
        metrics: `reports/metrics.json`.
        images: how many test images there are.
        predictions: of every model; None where neither DVC's cache nor a remote has them.
    """

    name: str
    revision: str | None
    metrics: Mapping[str, Any]
    images: int
    predictions: Predictions | None


def read_snapshot(repo: Repo, name: str) -> Snapshot:
    """Read a commit, a branch, an experiment by its name, or the workspace.

    Raises:
        ValueError: if there is no such revision, or it has no metrics.
    """
    if name == WORKSPACE:
        folder = Path(PREDICTIONS)
        predictions = Predictions.load(folder) if folder.exists() else None
        metrics, card = read_json(Path(METRICS)), read_json(Path(CARD))
        return Snapshot(name, None, metrics, card["images"]["test"], predictions)
    try:
        revision = resolve_rev(repo.scm, name)
    except (RevError, SCMError, DvcException):
        raise ValueError(
            f"{name}: no commit, branch or experiment of that name; see: dvc exp list"
        ) from None
    files = DVCFileSystem(repo.root_dir, rev=revision)
    try:
        found = [_json(files, file, name) for file in (METRICS, CARD)]
        return Snapshot(name, revision, found[0], found[1]["images"]["test"], _predictions(files))
    finally:
        files.close()


def params_diff(repo: Repo, first: str | None, second: str | None) -> dict[str, tuple[Any, Any]]:
    """The parameters that differ, with both values; None is the workspace."""
    return _diff(repo.params.diff(first or WORKSPACE, second or WORKSPACE))


def metrics_diff(repo: Repo, first: str | None, second: str | None) -> dict[str, tuple[Any, Any]]:
    """The tracked numbers that differ, with both values."""
    return _diff(repo.metrics.diff(first or WORKSPACE, second or WORKSPACE))


def _diff(found: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    several = len(found.get("diff", {})) > 1
    return {
        f"{file}: {key}" if several else key: (change.get("old"), change.get("new"))
        for file, changes in sorted(found.get("diff", {}).items())
        for key, change in sorted(changes.items())
    }


def _json(files: DVCFileSystem, file: str, name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(files.read_text(file))
        return content
    except (OSError, ValueError, DvcException):
        raise ValueError(
            f"{name} has no {file}: it was made before there was one, or its run did not end"
        ) from None


def _predictions(files: DVCFileSystem) -> Predictions | None:
    """The predictions of a revision, from DVC's cache or its remote."""
    folder = Path(tempfile.mkdtemp())
    try:
        files.get(PREDICTIONS, str(folder / "predictions"), recursive=True)
        return Predictions.load(folder / "predictions")
    except (OSError, ValueError, DvcException, DataIndexError):
        return None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_snapshots(repo: Repo, names: str) -> Sequence[Snapshot]:
    """Those of `NAME,NAME,...`: runs that differ in their seed."""
    return [read_snapshot(repo, name.strip()) for name in names.split(",")]
