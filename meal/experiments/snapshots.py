"""What a revision or an experiment holds: metrics, and predictions where they are at hand."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import RevError, SCMError, resolve_rev

from meal.evaluation.predictions import Predictions

METRICS = "reports/metrics.json"
CARD = "reports/dataset.json"
LOCK = "dvc.lock"
PARAMS = "params.yaml"
PREDICTIONS = "artifacts/predictions"
WORKSPACE = "workspace"
_MODELS = {"student", "baseline", "ensemble", "ensemble_fitted", "vote"}
_NO_RESULT = "runtime"  # the key of params.yaml that changes no number
_PICTURES = "report"  # the stage that makes no number


@dataclass(frozen=True)
class Snapshot:
    """A revision's results.

    Attributes:
        name: as it was asked for.
        revision: its commit; None is the workspace.
        metrics: `reports/metrics.json`.
        images: how many test images there are.
        stale: why the metrics are not of its parameters; empty where they are.
        predictions: of every model; None where they are not at hand, or are another run's.
    """

    name: str
    revision: str | None
    metrics: Mapping[str, Any]
    images: int
    stale: str
    predictions: Predictions | None


def read_snapshot(repo: Repo, name: str) -> Snapshot:
    """Read a commit, a branch, an experiment by its name, or the workspace.

    Raises:
        ValueError: if there is no such revision, or it has no metrics.
    """
    if name == WORKSPACE:
        return _snapshot(name, None, lambda file: Path(file).read_text("utf-8"), _here)
    try:
        revision = resolve_rev(repo.scm, name) if name else ""
    except (RevError, SCMError, DvcException):
        revision = ""
    if not revision:
        raise ValueError(
            f"{name!r}: no commit, branch or experiment of that name; see: dvc exp list"
        )
    # With the remotes that are known now: the revision may be older than they are.
    remotes = {key: repo.config[key] for key in ("core", "remote")}
    files = DVCFileSystem(repo.root_dir, rev=revision, config=remotes)
    try:
        return _snapshot(name, revision, files.read_text, lambda: _fetched(files))
    finally:
        files.close()


def _snapshot(
    name: str,
    revision: str | None,
    read: Callable[[str], str],
    predictions: Callable[[], Predictions | None],
) -> Snapshot:
    """What a revision holds.

    Args:
        name, revision: as in `Snapshot`.
        read: from the path of a file to its text.
        predictions: to its predictions; None where they are not at hand.
    """
    found = {file: _read(read, file, name) for file in (METRICS, CARD, LOCK, PARAMS)}
    metrics = found[METRICS]
    if not {*_MODELS, "teachers", "cost", "significance"} <= metrics.keys():
        raise ValueError(f"{METRICS} of {name} is of an older version of this code")
    answers = predictions()
    own = answers if answers and _fit(answers, metrics) else None
    images = found[CARD]["images"]["test"]
    return Snapshot(name, revision, metrics, images, _stale(name, found), own)


def _read(read: Callable[[str], str], file: str, name: str) -> dict[str, Any]:
    try:
        content = (json.loads if file.endswith(".json") else yaml.safe_load)(read(file))
    except (OSError, ValueError, yaml.YAMLError, DvcException):
        content = None
    if not isinstance(content, dict):
        raise ValueError(
            f"{name} has no {file}: it was made before there was one, or its run did not end"
        )
    return content


def _stale(name: str, files: Mapping[str, Mapping[str, Any]]) -> str:
    """Why the metrics are not of the parameters, by the lock file; empty where they are."""
    stages = files[LOCK].get("stages", {})
    ran = stages.get("configure", {}).get("params", {}).get(PARAMS)
    if ran is not None and _deciding(ran) != _deciding(files[PARAMS]):
        return f"{name} has not run since its {PARAMS} was changed"
    made = {out["path"]: out.get("md5") for stage in stages.values() for out in stage["outs"]}
    # The lock file also keeps what it knew of teachers that do not take part now.
    taking_part = {"", *(files[PARAMS].get("teachers") or [])}
    late = [
        stage
        for stage, entry in stages.items()
        if stage.partition("@")[2] in taking_part and stage != _PICTURES
        for dep in entry.get("deps", [])
        if made.get(dep["path"], dep.get("md5")) != dep.get("md5")
    ]
    if late:
        return f"{name} has not run {', '.join(dict.fromkeys(late))} since what is before changed"
    return ""


def _deciding(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters without those that change no number."""
    return {key: value for key, value in params.items() if key != _NO_RESULT}


def _here() -> Predictions | None:
    folder = Path(PREDICTIONS)
    return Predictions.load(folder) if folder.exists() else None


def _fetched(files: DVCFileSystem) -> Predictions | None:
    """The predictions of a revision, from DVC's cache or its remote."""
    folder = Path(tempfile.mkdtemp())
    try:
        files.get(PREDICTIONS, str(folder / "predictions"), recursive=True)
        return Predictions.load(folder / "predictions")
    except Exception:  # every kind of remote fails in its own way, also for want of its library
        return None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fit(predictions: Predictions, metrics: Mapping[str, Any]) -> bool:
    """Whether predictions and metrics are of one run."""
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
    """The tracked numbers that differ, with both values."""
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
    """Those of `NAME,NAME,...`: runs that differ in their seed.

    Raises:
        ValueError: as `read_snapshot`, or if one of them is named twice.
    """
    found = [read_snapshot(repo, name.strip()) for name in names.split(",")]
    if len({snapshot.revision for snapshot in found}) < len(found):
        raise ValueError(f"{names}: a run is named twice; one of each seed is expected")
    return found
