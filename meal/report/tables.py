"""Tables for people, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

if TYPE_CHECKING:
    import pandas as pd


def heading(manifest: Mapping[str, Any]) -> str:
    """The heading of results: the dataset, its labels, pool and test images, and its note."""
    note = f" ({manifest['note']})" if manifest["note"] else ""
    counts, labels = manifest["counts"], manifest["labels"]
    unlabelled = counts["train"] - labels["train"]
    pool = f", {unlabelled} unlabelled images" if unlabelled else ""
    return (
        f"{manifest['title']}, {sum(labels.values())} labels ({labels['train']} for training, "
        f"{labels['validation']} for validation){pool}, {counts['test']} test images{note}"
    )


def results_table(metrics: Mapping[str, Any]) -> str:
    """Every model of `reports/scores.json`: error, NLL, calibration and cost."""
    return _markdown(results_rows(metrics))


def results_rows(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of the results table, as text."""
    cost = metrics["cost"]
    student, ensemble = (
        {name: cost[f"{model}_{name}"] for name in ("parameters", "macs", "bytes")}
        for model in ("student", "ensemble")
    )
    rows = [
        _row(f"teacher {name}", scores, cost["teachers"][name])
        for name, scores in metrics["teachers"].items()
    ]
    rows.append(_row("ensemble of teachers", metrics["ensemble"], ensemble))
    rows.append(_row("ensemble, weights fitted", metrics["ensemble_fitted"], ensemble))
    rows.append(_row("ensemble, majority vote", metrics["vote"], ensemble))
    rows.append(_row("baseline, on labels", metrics["baseline"], student))
    rows.append(_row("student, distilled", metrics["student"], student))
    columns = [column for column in rows[0] if any(row[column] for row in rows)]
    return [{column: row[column] for column in columns} for row in rows]


def worth_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What each teacher is worth to the ensemble."""
    return _markdown(worth_rows(rows))


def worth_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rows of the table of teachers, as text."""
    return [
        {
            "teacher": row["teacher"],
            "error (%)": f"{row['error']:.2f}",
            "NLL": f"{row['nll']:.4f}",
            "fitted weight": f"{row['weight']:.2f}",
            **(_beside(row) if "gain" in row else {}),
        }
        for row in rows
    ]


def _beside(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "disagrees with the others (%)": f"{row['disagreement']:.2f}",
        "ensemble without it (%)": f"{row['error_without']:.2f}",
        "gain (points)": f"{row['gain']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})",
        "reading": row["reading"],
    }


def worth_note(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the table of teachers means, and which of them to leave out."""
    note = (
        "On the validation images. Gain: the error of the mean of the others minus that of all, "
        "with its 95% interval over the images."
    )
    harmful = [row["teacher"] for row in rows if row.get("high", 0) < 0]
    if not harmful:
        return note
    return f"{note} Without it, the ensemble is better: {', '.join(harmful)} (each alone)."


def networks_table(costs: Mapping[str, tuple[int, int]], scales: Mapping[str, bool]) -> str:
    """Parameters and multiply-adds of each architecture, and whether it supports other widths."""
    return _markdown(
        [
            {
                "architecture": name,
                "multiply-adds (G)": f"{macs / 1e9:.4f}",
                "parameters (M)": f"{parameters / 1e6:.3f}",
                "width": "any" if scales[name] else "1",
            }
            for name, (parameters, macs) in costs.items()
        ]
    )


def run_note(scores: Mapping[str, Any]) -> str:
    """Where the last bits of a result come from, in one sentence."""
    run = scores.get("run")
    if run is None:
        return "The machine is not known: an older version computed this."
    return (
        f"Computed on {run['processor']} with {run['threads']} thread(s), torch {run['torch']}; "
        "others give results as different as another seed does."
    )


def timings_table(timings: Mapping[str, Any]) -> str:
    """How long a prediction takes, by model."""
    return _markdown(timings_rows(timings))


def timings_rows(timings: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of the table of timings, as text."""
    return [
        {
            "model": model,
            "latency, 1 image (ms)": f"{row['latency_ms']:.2f}",
            "images per second, batches of 128": f"{row['images_per_second']:.0f}",
            "times the student's latency": f"{row['latency_ratio']:.2f}",
        }
        for model, row in timings["models"].items()
    ]


def timings_note(timings: Mapping[str, Any]) -> str:
    """Where and how timings were measured."""
    where = timings["machine"]
    steady = "" if timings["steady"] else " They were still changing: the machine was busy."
    return (
        f"The fastest of {timings['rounds']} rounds, all models in turn: {where['processor']}, "
        f"{where['threads']} thread(s), {where['device']}, torch {where['torch']}, commit "
        f"{where['commit'][:7]}.{steady}"
    )


def _row(model: str, scores: Mapping[str, float], cost: Mapping[str, int]) -> dict[str, str]:
    """A row; the vote has no probabilities, so its only metric is the error."""

    def shown(key: str, decimals: int) -> str:
        return f"{scores[key]:.{decimals}f}" if key in scores else ""

    return {
        "model": model,
        "top-1 error (%)": shown("top1_error", 2),
        "top-5 error (%)": shown("top5_error", 2),
        "NLL": shown("nll", 4),
        "Brier": shown("brier", 4),
        "ECE (%)": shown("ece", 2),
        "ECE scaled (%)": shown("ece_scaled", 2),
        "parameters (M)": f"{cost['parameters'] / 1e6:.3f}",
        "multiply-adds (M)": f"{cost['macs'] / 1e6:.1f}",
        "file (MB)": f"{cost['bytes'] / 1e6:.2f}",
    }


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a table, with floats at three decimals."""
    columns = [str(column) for column in frame.columns]
    return _markdown([dict(zip(columns, row, strict=True)) for row in frame.map(_cell).values])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def _markdown(rows: Sequence[Mapping[str, str]]) -> str:
    alignment = ["left"] + ["right"] * (len(rows[0]) - 1)
    return tabulate(
        rows, headers="keys", tablefmt="pipe", colalign=alignment, disable_numparse=True
    )
