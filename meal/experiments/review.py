"""What a reviewer reads of a change, in Markdown."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs
from dvc.scm import RevError, SCMError, resolve_rev

from meal.evaluation.comparison import claims
from meal.evaluation.predictions import STUDENT
from meal.experiments.compare import changes_table, significance
from meal.experiments.snapshots import WORKSPACE, metrics_diff, params_diff, read_snapshot
from meal.reporting.tables import escape, results_table

FIGURES = Path("reports/figures")
_FIRST = ("error_cost", "training", "reliability")  # in a review; the page has all


def review(base: str, pictures: str = ".") -> str:
    """Markdown that sets the workspace against where it left `base`.

    Args:
        base: the branch or commit that the change is meant for.
        pictures: the address that paths of pictures are put behind.

    Raises:
        ValueError: if there is no such branch or commit, or one of the two has no metrics.
    """
    with Repo() as repo:
        try:
            start = resolve_rev(repo.scm, base) if base else ""
        except (RevError, SCMError):
            start = ""
        if not start:
            raise ValueError(f"BASE={base}: no such branch or commit is here")
        experiments = {repo.scm.get_ref(str(ref)) for ref in exp_refs(repo.scm)}
        if start not in experiments:  # those are compared with as they are
            start = _merge_base(start)
        after, left = read_snapshot(repo, WORKSPACE), start[:7]
        parts = [f"# Review against {escape(base)}, from {left} on"]
        if after.stale:
            parts.append(f"**These results are not of this change**: {after.stale}.")
        listed = "\n".join(f"- {claim}" for claim in claims(after.metrics))
        parts.append(f"## Results\n\n{results_table(after.metrics)}\n\n{listed}")
        parts.append(f"## Parameters\n\n{changes_table(params_diff(repo, start, None))}")
        parts.append(f"## Metrics\n\n{changes_table(metrics_diff(repo, start, None))}")
        try:
            before = replace(read_snapshot(repo, start), name=left)
            if before.stale or after.stale:
                raise ValueError(after.stale or before.stale)
        except ValueError as error:
            parts.append(f"## Significance\n\nNot compared: {error}.")
        else:
            parts.append(significance([before], [after], STUDENT))
    shown = [FIGURES / f"{name}.svg" for name in _FIRST]
    lines = [
        f"![{path.stem.replace('_', ' ')}]({pictures.rstrip('/')}/{path.as_posix()})"
        for path in shown
        if path.exists()
    ]
    parts.append("## Pictures\n\n" + ("\n\n".join(lines) or "None are here; run: dvc repro report"))
    return "\n\n".join(parts)


def _merge_base(revision: str) -> str:
    """Where the current branch left a revision: what came to that since is not of this change."""
    command = ("git", "merge-base", "HEAD", revision)
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or revision
