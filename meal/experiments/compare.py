"""Two revisions or experiments side by side, in Markdown, and whether their results differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from meal.core.errors import UserError
from meal.core.text import escape
from meal.evaluation.comparison import ERROR, compare_models, compare_seeds
from meal.evaluation.predictions import STUDENT, TEACHER, VOTE, ModelPredictions, Predictions
from meal.evaluation.significance import CONFIDENCE, NOISE, Interval, unpaired_difference
from meal.experiments.repository import open_repository
from meal.experiments.snapshots import Snapshot, params_diff, read_snapshots
from meal.metrics import Labels
from meal.report.tables import markdown, results_table

_SHOWN_IMAGES = 10
_FEW_SEEDS = 5


def compare(first: str, second: str, model: str = STUDENT) -> str:
    """Markdown that compares the second revision with the first.

    Args:
        first, second: a commit, branch, experiment or `workspace`; or several joined by commas,
            for runs with several seeds, paired in order.
        model: the model to compare.

    Raises:
        UserError: if a revision or the model does not exist, a revision is stale, or the two sides
            have different numbers of runs.
    """
    with open_repository() as repo:
        before, after = read_snapshots(repo, first), read_snapshots(repo, second)
        if len(before) != len(after):
            raise UserError(
                f"{first} names {len(before)} runs, {second} {len(after)}: name as many of each, "
                "in the order of their seeds"
            )
        for snapshot in (*before, *after):
            stale = snapshot.freshness.stale
            if stale:
                raise UserError(
                    f"{stale}; run dvc repro to score the test images, or compare on validation: "
                    "python -m meal table"
                )
        changes = [
            params_diff(repo, one.revision, other.revision)
            for one, other in zip(before, after, strict=True)
        ]
    parts = [
        f"# {second} against {first}",
        *map(uncertainty, (*before, *after)),
        environments(before, after),
    ]
    for snapshot in (*before, *after):
        parts.append(f"## Results of {snapshot.name}\n\n{results_table(snapshot.metrics)}")
    paired = not any(
        key.endswith("seed") and None not in values  # None: of a network that one side has
        for changed in changes
        for key, values in changed.items()
    )
    parts.append(significance(before, after, model, paired))
    parts.append("## Parameters")
    for number, changed in enumerate(changes, 1):
        if changed not in changes[: number - 1]:  # usually all pairs differ in the same parameters
            title = "" if all(other == changes[0] for other in changes) else f"Pair {number}:\n\n"
            parts.append(title + changes_table(changed))
    return "\n\n".join(filter(None, parts))


def environments(before: Sequence[Snapshot], after: Sequence[Snapshot]) -> str:
    """How the machines of two sides differ, as Markdown; empty if they do not.

    Then every network may differ in its last bits, also those whose parameters are equal.
    """
    sides = [[snapshot.metrics.get("run", {}) for snapshot in side] for side in (before, after)]
    differing = []
    for key in ("processor", "threads", "processes", "torch"):
        unknown = 1 if key == "processes" else "unknown"  # earlier versions had one
        was, now = ({str(run.get(key, unknown)) for run in runs} for runs in sides)
        if was != now:
            differing.append(
                f"{key} {escape(', '.join(sorted(was)))}, now {escape(', '.join(sorted(now)))}"
            )
    if not differing:
        return ""
    return (
        f"**Computed differently** ({'; '.join(differing)}): every network may differ for no other "
        "reason, as much as with another seed. To compare on equal terms, run both on "
        "one machine with the same `runtime.threads` and `runtime.processes`: `dvc repro --force`."
    )


def uncertainty(snapshot: Snapshot) -> str:
    """What keeps us from telling whether a snapshot is stale, as Markdown; empty if nothing."""
    unknown = snapshot.freshness.unknown
    if not unknown:
        return ""
    return (
        f"**Cannot tell whether {escape(snapshot.name)} is stale**: DVC's cache here does not list "
        f"the files of {', '.join(unknown)} (fix: `dvc fetch --all-commits`)."
    )


def significance(
    before: Sequence[Snapshot], after: Sequence[Snapshot], model: str, paired: bool = False
) -> str:
    """Whether a model's predictions differ between the revisions, as Markdown.

    Args:
        before, after: the runs of each side.
        model: the model to compare.
        paired: whether several runs of both sides have the same seeds, in the same order.
    """
    names = [escape(", ".join(snapshot.name for snapshot in side)) for side in (after, before)]
    parts = [f"## Significance: the {escape(model)}, {names[0]} minus {names[1]}"]
    found = {s.name: s.predictions for s in (*before, *after) if s.predictions}
    obstacle = _obstacle([*before, *after])
    if obstacle:
        return "\n\n".join([*parts, obstacle, _unpaired(before, after, model)])
    labels, classes = found[before[0].name].labels, found[before[0].name].card["classes"]
    runs = [[_model(found[s.name], s.name, model) for s in side] for side in (after, before)]
    if len(before) > 1:
        intervals = compare_seeds(labels, runs[0], runs[1], paired)
        few = " With so few seeds, intervals are wide." if len(before) < _FEW_SEEDS else ""
        parts.append(_intervals({name: (each, each.reading) for name, each in intervals.items()}))
        pairs = ", paired by seed" if paired else ""
        parts.append(
            f"{len(before)} runs on each side{pairs}; the intervals span images and seeds.{few}"
        )
        return "\n\n".join(parts)
    single = compare_models(labels, runs[0][0], runs[1][0])
    test = single.mcnemar
    parts.append(
        _intervals({name: (each, single.reading(name)) for name, each in single.intervals.items()})
    )
    p = f"p = {test.p:.3f}" if test.p >= 0.001 else "p < 0.001"
    parts.append(
        f"McNemar's test: only {names[0]} is correct on {test.first_only} images, "
        f"only {names[1]} on {test.second_only}; {p}"
        f"{f', {NOISE}' if test.p >= 1 - CONFIDENCE else ''}."
    )
    parts.append("### Images on which they disagree most")
    parts.append(_disagreements(classes, labels, names[::-1], (runs[1][0], runs[0][0])))
    return "\n\n".join(parts)


def changes_table(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Keys with their old and new values, as Markdown."""
    if not changes:
        return "No change."
    rows = [
        [escape(key), _shown(old), _shown(new), _change(old, new)]
        for key, (old, new) in changes.items()
    ]
    frame = pd.DataFrame(rows, columns=["key", "before", "after", "change"])
    return markdown(frame if frame["change"].any() else frame.drop(columns="change"))


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else escape(str(value))


def _change(old: Any, new: Any) -> str:
    numbers = all(type(each) in (int, float) for each in (old, new))
    return f"{new - old:+.4g}" if numbers else ""


def _obstacle(snapshots: Sequence[Snapshot]) -> str:
    """Why predictions cannot be compared image by image; empty if they can."""
    missing = [escape(s.name) for s in snapshots if not s.predictions]
    if missing:
        return (
            f"The predictions of {', '.join(missing)} are missing or belong to another run (fix: "
            "`dvc checkout`, or `dvc pull` from a remote). This is the interval for unpaired error "
            "rates:"
        )
    found = [s.predictions for s in snapshots if s.predictions]
    if len({(each.card["images"], each.labels.tobytes()) for each in found}) > 1:
        return "Their test images differ, so errors are compared as unpaired rates."
    return ""


def _model(predictions: Predictions, name: str, model: str) -> ModelPredictions:
    models = predictions.models
    if model not in models:
        raise UserError(f"--model {model}: {name} has {', '.join(models)}")
    return models[model]


def _unpaired(before: Sequence[Snapshot], after: Sequence[Snapshot], model: str) -> str:
    errors = [[_error(snapshot, model) for snapshot in side] for side in (after, before)]
    images = min(snapshot.images for snapshot in (*before, *after))
    found = unpaired_difference(errors[0], errors[1], images)
    return _intervals({ERROR: (found, found.reading)})


def _error(snapshot: Snapshot, model: str) -> float:
    metrics = snapshot.metrics
    known = {**{name: metrics[name] for name in metrics if "top1_error" in metrics[name]}}
    known |= {TEACHER + name: scores for name, scores in metrics["teachers"].items()}
    known.pop(VOTE, None)
    if model not in known:
        raise UserError(f"--model {model}: {snapshot.name} has {', '.join(known)}")
    return float(known[model]["top1_error"])


def _intervals(found: Mapping[str, tuple[Interval, str]]) -> str:
    """Intervals and what they say, by metric."""
    rows = [
        {
            "metric": metric,
            "difference": f"{interval.difference:+.4f}",
            "95% interval": f"{interval.low:+.4f} to {interval.high:+.4f}",
            "reading": reading,
        }
        for metric, (interval, reading) in found.items()
    ]
    return markdown(pd.DataFrame(rows))


def _disagreements(
    classes: Sequence[str],
    labels: Labels,
    names: Sequence[str],
    models: tuple[ModelPredictions, ModelPredictions],
) -> str:
    """The images predicted differently whose labels changed most in likelihood."""
    first, second = models
    rows = np.flatnonzero(first.predicted != second.predicted)
    if not len(rows):
        return "None: all predictions agree."
    moved = np.abs(second.log_likelihood[rows] - first.log_likelihood[rows])
    rows = rows[np.argsort(-moved, kind="stable")][:_SHOWN_IMAGES]
    table = [
        [
            str(row),
            escape(classes[labels[row]]),
            *(f"{escape(classes[m.predicted[row]])} ({m.confidence[row]:.2f})" for m in models),
        ]
        for row in rows.tolist()
    ]
    return markdown(pd.DataFrame(table, columns=["test image", "label", *names]))
