"""DVC's finished experiments as a pandas table: parameters and scores, one row per experiment."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCMError

from meal.configure.defaults import flat
from meal.core.errors import UserError
from meal.core.paths import METRICS, PARAMS, SCORES
from meal.core.settings import parse_yaml
from meal.experiments.freshness import LOCK, TESTED, VALIDATED, folder_reader, freshness
from meal.experiments.repository import open_repository
from meal.experiments.snapshots import WORKSPACE

TEST = (str(METRICS), str(SCORES))  # files of scores on test images


def read_runs(revisions: Sequence[str], file: str, scores: Sequence[str]) -> pd.DataFrame:
    """The experiments that start from given commits.

    The scores of the commits themselves are excluded: they may be stale, or from a run with a
    different number of threads.

    Args:
        revisions: the commits; HEAD if empty.
        file: a file of scores, in JSON.
        scores: in that file, with their keys joined by dots: `student.top1_error`.

    Returns:
        A column for each parameter, with lists and null as text, and one for each score; the index
        is the commit. Experiments with equal parameters and scores share one row.

    Raises:
        UserError: if no experiment has these scores.
    """
    rows, commits = [], []
    repo = open_repository()
    for revision, params in fresh_runs(repo, revisions, file):
        found = shown(read_content(repo, revision, file))
        if set(scores) <= found.keys():
            row = {key: "null" if value is None else value for key, value in shown(params).items()}
            rows.append({**row, **{score: float(found[score]) for score in scores}})
            commits.append(revision)
    if not rows:
        target = " --target evaluate" if file in TEST else ""
        raise UserError(
            f"no experiment has {', '.join(scores)} in {file}; run some with: "
            f"python -m meal sweep -S KEY=A,B{target}"
        )
    # A key that another commit lacks is no reason to drop its runs.
    return pd.DataFrame(rows, commits).fillna("missing").drop_duplicates()


def fresh_runs(
    repo: Repo, revisions: Sequence[str], file: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The commit and the parameters of each finished experiment whose scores are its own.

    Args:
        repo: the repository.
        revisions: the commits from which the experiments start; HEAD if empty.
        file: the file of scores, which must belong to the parameters.

    Raises:
        UserError: if there is no such commit.
    """
    try:
        commits = repo.experiments.show(revs=list(revisions) or None)
    except (DvcException, SCMError) as error:
        raise UserError(f"{' '.join(revisions)}: {error}") from None
    for commit in commits:
        for state in _finished(commit):
            if is_fresh(repo, state.rev, file):
                yield state.rev, content(state.data.params, PARAMS.name)


def _finished(commit: Any) -> Iterator[Any]:
    """A commit's successful experiments."""
    for experiment in commit.experiments or []:
        if experiment.executor is None or experiment.executor.state == "success":
            yield from (state for state in experiment.revs[:1] if state.data)


def is_fresh(repo: Repo, revision: str, file: str) -> bool:
    """Whether the scores in a file of a revision, or `workspace`, are those of its parameters."""
    tree = None if revision == WORKSPACE else repo.scm.get_fs(revision)

    def read(name: str) -> Any:
        return parse_yaml(tree.read_text(name) if tree else Path(name).read_text("utf-8"))

    try:
        lock, params = read(LOCK), read(PARAMS.name)
    except (OSError, ValueError):
        return False
    stages = TESTED if file in TEST else VALIDATED
    return not freshness(revision, lock or {}, params or {}, folder_reader(repo), stages).stale


def read_content(repo: Repo, revision: str, file: str) -> Mapping[str, Any]:
    """A JSON file of a revision; empty if it has none."""
    try:
        content = json.loads(repo.scm.get_fs(revision).read_text(file))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def content(files: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """What DVC read from a file of parameters; empty if it could not."""
    return ((files or {}).get(name) or {}).get("data") or {}


def shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values by their joined keys; lists and empty mappings as text."""
    return {
        key: str(value) if isinstance(value, (list, Mapping)) else value
        for key, value in flat(values).items()
    }
