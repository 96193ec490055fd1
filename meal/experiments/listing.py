"""DVC's experiments in a table that fits a terminal: what was changed, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCMError

from meal.core.errors import UserError
from meal.core.paths import METRICS, PARAMS, VALIDATION
from meal.core.text import printable
from meal.experiments.repository import open_repository
from meal.experiments.runs import content, is_fresh, shown

_KEY = "Errors of the student in percent; points by which it is better than baseline and ensemble."
_NARROWEST = 70  # characters of a line that are always shown
_NAME = 24  # characters of a name
_COLUMNS = {  # heading, file and key of each number
    "val err": (str(VALIDATION), "validation.student.top1_error"),
    "test err": (str(METRICS), "student.top1_error"),
    "over base": (str(METRICS), "gain.over_baseline"),
    "over ens": (str(METRICS), "gain.over_ensemble"),
}


def list_experiments(revisions: Sequence[str], width: int | None) -> str:
    """Commits and their experiments: errors in percent, gains in points, changed parameters.

    Args:
        revisions: the commits; HEAD if empty.
        width: of the table, in characters; None for lines of any length.

    Raises:
        UserError: if there is no such commit.
    """
    width = width and max(width, _NARROWEST)
    repo = open_repository()
    try:
        commits = repo.experiments.show(revs=list(revisions) or None)
    except (DvcException, SCMError) as error:
        raise UserError(f"{' '.join(revisions)}: {error}") from None
    lines = [_line("experiment", dict.fromkeys(_COLUMNS, ""), "changed parameters", width, True)]
    for commit in commits:
        base = _params(commit.data)
        name = "workspace" if commit.rev == "workspace" else commit.name or commit.rev[:7]
        lines.append(_line(name, _numbers(repo, commit), "", width))
        for experiment in commit.experiments or []:
            for state in experiment.revs[:1]:
                changed = ""
                if state.data:
                    own = _params(state.data)
                    changed = ", ".join(
                        f"{key}={value}" for key, value in own.items() if base.get(key) != value
                    )
                elif experiment.executor is not None:
                    changed = f"({experiment.executor.state})"
                shown = f"  {experiment.name or state.rev[:7]}"
                lines.append(_line(shown, _numbers(repo, state), changed, width))
    return "\n".join([*lines, "", _KEY])


def _params(data: Any) -> dict[str, Any]:
    return shown(content(data.params if data else None, PARAMS.name))


def _numbers(repo: Repo, state: Any) -> dict[str, str]:
    """The numbers of one state; `-` where they are not those of its parameters."""
    found = dict.fromkeys(_COLUMNS, "-")
    fresh: dict[str, bool] = {}  # by file
    for heading, (file, key) in _COLUMNS.items():
        value = shown(content(state.data.metrics if state.data else None, file)).get(key)
        if not isinstance(value, (int, float)):
            continue
        if file not in fresh:
            fresh[file] = is_fresh(repo, state.rev, file)
        if fresh[file]:
            found[heading] = f"{value:.2f}"
    return found


def _line(
    name: str, numbers: Mapping[str, str], changed: str, width: int | None, heading: bool = False
) -> str:
    name = printable(name)
    if len(name) > _NAME:
        name = f"{name[: _NAME - 1]}…"
    cells = [f"{heading_ if heading else numbers[heading_]:>9}" for heading_ in _COLUMNS]
    line = f"{name:{_NAME}} {' '.join(cells)}  {printable(changed)}".rstrip()
    if width is None or len(line) <= width:
        return line
    return f"{line[: width - 1]}…"
