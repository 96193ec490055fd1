"""DVC's finished experiments as a pandas table: parameters and scores, one row an experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCMError

PARAMS = "params.yaml"
VALIDATION = "reports/validation.json"
TEST = "reports/metrics.json"
STUDENT = "artifacts/student"


def read_runs(revisions: Sequence[str], file: str, score: str) -> pd.DataFrame:
    """The experiments that derive from commits.

    The commits' own scores are left out: they may be of parameters before, or of other threads.

    Args:
        revisions: the commits; HEAD where empty.
        file: the metrics file.
        score: the metric in it, its keys joined by dots: `student.top1_error`.

    Returns:
        A column for each parameter, lists as text, and `score`. Experiments of equal parameters,
        which give equal scores, are one row.

    Raises:
        ValueError: if no experiment has that score.
    """
    rows = []
    try:
        commits = Repo().experiments.show(revs=list(revisions) or None)
    except (DvcException, SCMError) as error:
        raise ValueError(f"{' '.join(revisions)}: {error}") from None
    for commit in commits:
        for state in _finished(commit):
            scores = _flat(_content(state.data.metrics, file))
            if score in scores and not _stale(state.data, file):
                params = _flat(_content(state.data.params, PARAMS))
                rows.append({**params, "score": float(scores[score])})
    if not rows:
        target = " --target evaluate" if file == TEST else ""
        raise ValueError(
            f"no experiment has {score} in {file}; make some with: "
            f"python -m meal sweep -S KEY=A,B{target}"
        )
    return pd.DataFrame(rows).drop_duplicates(ignore_index=True)


def _finished(commit: Any) -> Iterator[Any]:
    """A commit's experiments that ended well."""
    for experiment in commit.experiments or []:
        if experiment.executor is None or experiment.executor.state == "success":
            yield from (state for state in experiment.revs[:1] if state.data)


def _stale(data: Any, file: str) -> bool:
    """Whether a score of test images is of a student before: `evaluate` has not run since."""
    if file != TEST:
        return False
    scored, made = data.deps.get(STUDENT), data.outs.get(STUDENT)
    return scored is None or made is None or scored.hash != made.hash


def _content(files: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """What DVC read from one file of parameters or metrics; empty where it could not."""
    return ((files or {}).get(name) or {}).get("data") or {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value) if isinstance(value, list) else value
    return flat
