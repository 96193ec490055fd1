"""Two revisions or experiments beside each other, in Markdown: numbers, and whether they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from dvc.repo import Repo

from meal.evaluation.comparison import compare_models, compare_seeds
from meal.evaluation.predictions import STUDENT, TEACHER, VOTE, ModelAnswers
from meal.evaluation.significance import Interval, unpaired_difference
from meal.experiments.snapshots import Snapshot, params_diff, read_snapshots
from meal.reporting.tables import markdown, results_table

_SHOWN_IMAGES = 10


def compare(first: str, second: str, model: str = STUDENT) -> str:
    """Markdown that sets the second revision against the first.

    Args:
        first, second: a commit, branch, experiment or `workspace`; or several joined by commas,
            runs of several seeds, paired in their order.
        model: which model's answers are compared.

    Raises:
        ValueError: if a revision or the model is not there, or the numbers of seeds differ.
    """
    with Repo() as repo:
        before, after = read_snapshots(repo, first), read_snapshots(repo, second)
        if len(before) != len(after):
            raise ValueError(
                f"{first} names {len(before)} runs, {second} {len(after)}: runs of several seeds "
                "are compared pair by pair"
            )
        changed = params_diff(repo, before[0].revision, after[0].revision)
    parts = [f"# {second} against {first}"]
    for snapshot in (*before, *after):
        parts.append(f"## Results of {snapshot.name}\n\n{results_table(snapshot.metrics)}")
    parts.append(significance(before, after, model))
    parts.append(f"## Parameters\n\n{changes_table(changed)}")
    return "\n\n".join(parts)


def significance(before: Sequence[Snapshot], after: Sequence[Snapshot], model: str) -> str:
    """Whether a model's answers differ from one revision to the other, as Markdown."""
    title = f"## Significance: the {model}, {after[0].name} minus {before[0].name}"
    obstacle = _obstacle([*before, *after])
    if obstacle:
        return f"{title}\n\n{obstacle}\n\n{_unpaired(before, after, model)}"
    runs = [[_answers(snapshot, model) for snapshot in side] for side in (after, before)]
    first = before[0].predictions
    assert first is not None
    parts = [title]
    if len(before) > 1:
        found = compare_seeds(first.labels, *runs)
        parts += [_intervals(found), f"{len(before)} pairs of runs; images and seeds resampled."]
        return "\n\n".join(parts)
    single = compare_models(first.labels, runs[0][0], runs[1][0])
    test = single.mcnemar
    parts.append(_intervals(single.intervals))
    parts.append(
        f"McNemar's test: {after[0].name} alone is right on {test.first_only} images, "
        f"{before[0].name} alone on {test.second_only}; p = {test.p:.3f}"
        f"{', inside the noise' if test.p >= 0.05 else ''}."
    )
    parts.append("### Images on which they disagree most")
    parts.append(_disagreements(before[0], after[0], runs[1][0], runs[0][0]))
    return "\n\n".join(parts)


def changes_table(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Keys with their old and new values, as Markdown."""
    if not changes:
        return "No change."
    rows = [
        {"key": key, "before": _shown(old), "after": _shown(new)}
        for key, (old, new) in changes.items()
    ]
    return markdown(pd.DataFrame(rows))


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _obstacle(snapshots: Sequence[Snapshot]) -> str:
    """Why answers cannot be compared image by image; empty where they can."""
    missing = [snapshot.name for snapshot in snapshots if snapshot.predictions is None]
    if missing:
        return (
            f"The predictions of {', '.join(missing)} are not here (`dvc pull` brings them where "
            "there is a remote), so this is the wider interval of two unpaired error rates:"
        )
    cards = {s.predictions.card["images"] for s in snapshots if s.predictions}
    labels = {s.predictions.labels.tobytes() for s in snapshots if s.predictions}
    if len(cards) > 1 or len(labels) > 1:
        return "Their test images are not the same: errors are compared as unpaired rates."
    return ""


def _answers(snapshot: Snapshot, model: str) -> ModelAnswers:
    assert snapshot.predictions is not None
    models = snapshot.predictions.models
    if model not in models:
        raise ValueError(f"--model {model}: {snapshot.name} has {', '.join(models)}")
    return models[model]


def _unpaired(before: Sequence[Snapshot], after: Sequence[Snapshot], model: str) -> str:
    sides = [[_error(snapshot, model) for snapshot in side] for side in (after, before)]
    means = [float(np.mean(errors)) for errors in sides]
    images = min(snapshot.images for snapshot in (*before, *after))
    return _intervals({"top-1 error (points)": unpaired_difference(means[0], means[1], images)})


def _error(snapshot: Snapshot, model: str) -> float:
    metrics = snapshot.metrics
    known = {**{name: metrics[name] for name in metrics if "top1_error" in metrics[name]}}
    known |= {TEACHER + name: scores for name, scores in metrics["teachers"].items()}
    known.pop(VOTE, None)
    if model not in known:
        raise ValueError(f"--model {model}: {snapshot.name} has {', '.join(known)}")
    return float(known[model]["top1_error"])


def _intervals(found: Mapping[str, Interval]) -> str:
    rows = [
        {
            "measure": measure,
            "difference": f"{interval.difference:+.4f}",
            "95% interval": f"{interval.low:+.4f} to {interval.high:+.4f}",
            "reading": interval.reading,
        }
        for measure, interval in found.items()
    ]
    return markdown(pd.DataFrame(rows))


def _disagreements(
    before: Snapshot, after: Snapshot, first: ModelAnswers, second: ModelAnswers
) -> str:
    """The test images whose label's likelihood moved most, of those that are answered otherwise."""
    assert before.predictions is not None
    rows = np.flatnonzero(first.answers != second.answers)
    if not len(rows):
        return "None: every answer is the same."
    moved = np.abs(second.log_likelihood[rows] - first.log_likelihood[rows])
    rows = rows[np.argsort(-moved, kind="stable")][:_SHOWN_IMAGES]
    names, labels = before.predictions.card["classes"], before.predictions.labels
    table = [
        {
            "test image": str(row),
            "label": names[labels[row]],
            before.name: f"{names[first.answers[row]]} ({first.confidence[row]:.2f})",
            f"{after.name} ": f"{names[second.answers[row]]} ({second.confidence[row]:.2f})",
        }
        for row in rows.tolist()
    ]
    return markdown(pd.DataFrame(table))
