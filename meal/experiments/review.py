"""What a reviewer reads about a change, in Markdown."""

from __future__ import annotations

import subprocess
from dataclasses import replace

from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs
from dvc.scm import RevError, SCMError, resolve_rev

from meal.core.errors import UserError
from meal.core.paths import FIGURES
from meal.core.text import escape
from meal.evaluation.comparison import claims
from meal.evaluation.predictions import STUDENT
from meal.experiments.compare import (
    changes_table,
    environments,
    significance,
    uncertainty,
)
from meal.experiments.repository import open_repository
from meal.experiments.snapshots import WORKSPACE, Snapshot, metrics_diff, params_diff, read_snapshot
from meal.report.tables import results_table

_SHOWN = ("error_cost", "training", "reliability")  # the page has all pictures


def review(base: str, pictures: str = ".") -> str:
    """Markdown that compares the workspace with where it branched off `base`.

    Args:
        base: the branch or commit that the change targets.
        pictures: a URL to prepend to the paths of pictures.

    Raises:
        UserError: if there is no such branch or commit, or the workspace has no metrics.
    """
    with open_repository() as repo:
        try:
            start = resolve_rev(repo.scm, base) if base else ""
        except (RevError, SCMError):
            start = ""
        if not start:
            raise UserError(f"BASE={base}: no such branch or commit")
        experiments = {repo.scm.get_ref(str(ref)) for ref in exp_refs(repo.scm)}
        if start not in experiments:  # experiments are compared as they are
            start = _merge_base(start)
        after, left = read_snapshot(repo, WORKSPACE), start[:7]
        parts = [f"# Review against {escape(base)}, since {left}"]
        if after.freshness.stale:
            parts.append(f"**These results are stale**: {after.freshness.stale}.")
        if after.freshness.unknown:
            parts.append(uncertainty(after))
        before = _before(repo, start)
        if isinstance(before, Snapshot):
            parts.append(environments([before], [after]))
        listed = "\n".join(f"- {claim}" for claim in claims(after.metrics))
        parts.append(f"## Results\n\n{results_table(after.metrics)}\n\n{listed}")
        parts.append(f"## Parameters\n\n{changes_table(params_diff(repo, start, None))}")
        parts.append(f"## Metrics\n\n{changes_table(metrics_diff(repo, start, None))}")
        if isinstance(before, str):
            parts.append(f"## Significance\n\nNot compared: {before}.")
        elif stale := after.freshness.stale or before.freshness.stale:
            parts.append(f"## Significance\n\nNot compared: {stale}.")
        else:
            parts.append(significance([before], [after], STUDENT))
    shown = [FIGURES / f"{name}.svg" for name in _SHOWN]
    lines = [
        f"![{path.stem.replace('_', ' ')}]({pictures.rstrip('/')}/{path.as_posix()})"
        for path in shown
        if path.exists()
    ]
    parts.append(
        "## Pictures\n\n" + ("\n\n".join(lines) or "There are none; run: dvc repro report")
    )
    return "\n\n".join(filter(None, parts))


def _before(repo: Repo, start: str) -> Snapshot | str:
    """The results of the commit that a change starts from, or why there are none."""
    try:
        return replace(read_snapshot(repo, start), name=start[:7])
    except UserError as error:
        return str(error)


def _merge_base(revision: str) -> str:
    """The commit where the current branch left a revision: later ones are not in the change."""
    command = ("git", "merge-base", "HEAD", revision)
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or revision
