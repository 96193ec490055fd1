"""The results of a revision or an experiment: metrics, and predictions if available."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import RevError, SCMError, resolve_rev
from tqdm import tqdm

from meal.core.errors import UserError
from meal.core.paths import DATA_CARD, PARAMS, PREDICTIONS, SCORES
from meal.core.settings import parse_yaml
from meal.evaluation.predictions import Predictions
from meal.experiments.freshness import LOCK, Freshness, folder_reader, freshness
from meal.experiments.repository import open_repository

FILES = tuple(map(str, (SCORES, DATA_CARD, PARAMS)))

WORKSPACE = "workspace"
_MODELS = {"student", "baseline", "ensemble", "ensemble_fitted", "vote"}


@dataclass(frozen=True)
class Snapshot:
    """A revision's results.

    Attributes:
        name: as the user gave it.
        revision: its commit; None for the workspace.
        metrics: `reports/scores.json`.
        images: the number of test images.
        freshness: whether the metrics are stale.
        predictions: of every model; None if they are missing or from another run.
    """

    name: str
    revision: str | None
    metrics: Mapping[str, Any]
    images: int
    freshness: Freshness
    predictions: Predictions | None

    def need_predictions(self) -> Predictions:
        """The predictions; raise UserError if there are none."""
        if self.predictions is None:
            raise UserError(
                f"neither DVC's cache nor a remote has the predictions of {self.name[:7]}; run it "
                "again, or leave it out with --where"
            )
        return self.predictions


def read_snapshot(repo: Repo, name: str) -> Snapshot:
    """Read a commit, a branch, an experiment by its name, or the workspace.

    Raises:
        UserError: if there is no such revision, or it has no metrics.
    """
    if name == WORKSPACE:
        return _snapshot(repo, name, None, lambda file: Path(file).read_text("utf-8"), _here)
    try:
        revision = resolve_rev(repo.scm, name) if name else ""
    except (RevError, SCMError, DvcException):
        revision = ""
    if not revision:
        raise UserError(
            f"{name!r}: no commit, branch or experiment has that name; see: dvc exp list"
        )
    # Use the current remotes: the revision may predate them.
    remotes = {key: repo.config[key] for key in ("core", "remote")}
    files = DVCFileSystem(repo.root_dir, rev=revision, config=remotes)
    try:
        return _snapshot(repo, name, revision, files.read_text, lambda: _fetched(files))
    finally:
        files.close()


def read_all(revisions: Sequence[str]) -> dict[str, Snapshot]:
    """The snapshots of finished runs, by their commits; raises as `read_snapshot` does."""
    with open_repository() as repo:
        return {
            revision: read_snapshot(repo, revision)
            for revision in tqdm(revisions, unit="run", leave=False, disable=None)
        }


def _snapshot(
    repo: Repo,
    name: str,
    revision: str | None,
    read: Callable[[str], str],
    predictions: Callable[[], Predictions | None],
) -> Snapshot:
    """The results of a revision.

    Args:
        repo: the project.
        name, revision: as in `Snapshot`.
        read: from the path of a file to its text.
        predictions: returns the predictions, or None if they are missing.
    """
    found = {file: _read(read, file, name) for file in (*FILES, LOCK)}
    metrics = found[str(SCORES)]
    if not {*_MODELS, "teachers", "cost", "significance"} <= metrics.keys():
        raise UserError(f"{SCORES} of {name} was written by an older version of this code")
    available = predictions()
    own = available if available and _fit(available, metrics) else None
    images = found[str(DATA_CARD)]["images"]["test"]
    fresh = freshness(name, found[LOCK], found[str(PARAMS)], folder_reader(repo))
    return Snapshot(name, revision, metrics, images, fresh, own)


def _read(read: Callable[[str], str], file: str, name: str) -> dict[str, Any]:
    try:
        content = (json.loads if file.endswith(".json") else parse_yaml)(read(file))
    except (OSError, ValueError, DvcException):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{name} has no {file}: it predates that file, or its run did not finish")
    return content


def _here() -> Predictions | None:
    return Predictions.load(PREDICTIONS) if PREDICTIONS.exists() else None


def _fetched(files: DVCFileSystem) -> Predictions | None:
    """The predictions of a revision, from DVC's cache or its remote."""
    folder = Path(tempfile.mkdtemp())
    try:
        files.get(str(PREDICTIONS), str(folder / "predictions"), recursive=True)
        return Predictions.load(folder / "predictions")
    except Exception:  # each kind of remote raises its own, for example if its library is missing
        return None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fit(predictions: Predictions, metrics: Mapping[str, Any]) -> bool:
    """Whether predictions and metrics are from the same run."""
    return all(
        name in predictions.models
        and abs(100 * float((~predictions.correct(name)).mean()) - metrics[name]["top1_error"])
        < 0.01
        and abs(-float(predictions.models[name].log_likelihood.mean()) - metrics[name]["nll"])
        < 0.001
        for name in _MODELS - {"vote"}
    )


def params_diff(repo: Repo, first: str | None, second: str | None) -> dict[str, tuple[Any, Any]]:
    """The parameters that differ, with both values; None is the workspace."""
    return _diff(repo.params.diff(first or WORKSPACE, second or WORKSPACE))


def metrics_diff(repo: Repo, first: str | None, second: str | None) -> dict[str, tuple[Any, Any]]:
    """The tracked metrics that differ, with both values."""
    found = _diff(repo.metrics.diff(first or WORKSPACE, second or WORKSPACE))
    return {key: pair for key, pair in found.items() if any(map(_is_number, pair))}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _diff(found: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    several = len(found.get("diff", {})) > 1
    return {
        f"{file}: {key}" if several else key: (change.get("old"), change.get("new"))
        for file, changes in sorted(found.get("diff", {}).items())
        for key, change in sorted(changes.items())
    }


def read_snapshots(repo: Repo, names: str) -> Sequence[Snapshot]:
    """The snapshots of `NAME,NAME,...`: runs with different seeds.

    Raises:
        UserError: as in `read_snapshot`, or if a run is named twice.
    """
    found = [read_snapshot(repo, name.strip()) for name in names.split(",")]
    if len({snapshot.revision for snapshot in found}) < len(found):
        raise UserError(f"{names}: a run is named twice; name one run per seed")
    return found
