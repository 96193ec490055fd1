"""Tables that people read, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from meal.evaluation.costs import Cost


def heading(manifest: Mapping[str, Any]) -> str:
    """What the numbers are about: the dataset, its test images, and what to know of it."""
    note = f" ({manifest['note']})" if manifest["note"] else ""
    return f"{manifest['title']}, {manifest['counts']['test']} test images{note}"


def results_table(metrics: Mapping[str, Any]) -> str:
    """Every model of `reports/metrics.json`: error, likelihood, calibration and cost."""
    cost = metrics["cost"]
    student = {"parameters": cost["student_parameters"], "macs": cost["student_macs"]}
    ensemble = {"parameters": cost["ensemble_parameters"], "macs": cost["ensemble_macs"]}
    rows = [
        _row(f"teacher {name}", scores, cost["teachers"][name])
        for name, scores in metrics["teachers"].items()
    ]
    rows.append(_row("ensemble of teachers", metrics["ensemble"], ensemble))
    rows.append(_row("ensemble, weights fitted", metrics["ensemble_fitted"], ensemble))
    rows.append(_row("baseline, on labels", metrics["baseline"], student))
    rows.append(_row("student, distilled", metrics["student"], student))
    return _markdown(pd.DataFrame(rows))


def networks_table(costs: Mapping[str, Cost], scales: Mapping[str, bool]) -> str:
    """What each architecture costs, and whether it has widths other than 1."""
    return _markdown(
        pd.DataFrame(
            {
                "architecture": name,
                "multiply-adds (G)": f"{cost.macs / 1e9:.4f}",
                "parameters (M)": f"{cost.parameters / 1e6:.3f}",
                "width": "any" if scales[name] else "1",
            }
            for name, cost in costs.items()
        )
    )


def _row(model: str, scores: Mapping[str, float], cost: Mapping[str, int]) -> dict[str, str]:
    return {
        "model": model,
        "top-1 error (%)": f"{scores['top1_error']:.2f}",
        "NLL": f"{scores['nll']:.4f}",
        "ECE (%)": f"{scores['ece']:.2f}",
        "parameters (M)": f"{cost['parameters'] / 1e6:.3f}",
        "multiply-adds (M)": f"{cost['macs'] / 1e6:.1f}",
    }


def markdown(frame: pd.DataFrame) -> str:
    """A table of text and numbers, three decimals."""
    shown = frame.map(lambda value: f"{value:.3f}" if isinstance(value, float) else str(value))
    return _markdown(shown.replace("nan", ""))


def _markdown(frame: pd.DataFrame) -> str:
    alignment = ["left"] + ["right"] * (len(frame.columns) - 1)
    return str(frame.to_markdown(index=False, colalign=alignment, disable_numparse=True))
