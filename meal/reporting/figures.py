"""Figures as SVG: text stays text, and the same numbers give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "meal", "svg.fonttype": "none", "font.size": 9})

from matplotlib import pyplot as plt  # noqa: E402 - after the choice of backend

if TYPE_CHECKING:
    import pandas as pd


def save(figure: Any, path: Path) -> None:
    """Write a figure and forget it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def seeds_figure(table: pd.DataFrame, score: str, path: Path) -> None:
    """Mean and deviation of each row of `experiments.table.summarise`."""
    factors = list(table.columns[: list(table.columns).index("seeds")])
    labels = [", ".join(_short(key, row[key]) for key in factors) for _, row in table.iterrows()]
    figure, axis = plt.subplots(figsize=(6.5, 0.9 + 0.3 * len(table)))
    places = range(len(table))
    axis.errorbar(
        table["mean"], places, xerr=table["deviation"].fillna(0), fmt="o", capsize=3, markersize=5
    )
    axis.set_yticks(places, labels)
    axis.invert_yaxis()
    axis.set_xlabel(f"{score}: mean and standard deviation over seeds")
    axis.grid(axis="x", alpha=0.3)
    save(figure, path)


def _short(key: str, value: object) -> str:
    text = str(value).replace("'", "").strip("[]") or "none"
    name = key.rsplit(".", 1)[-1]
    return text if name in ("adversarial", "selection", "teachers") else f"{name} {text}"
