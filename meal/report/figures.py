"""Figures as SVG, with text as text and stable bytes, for light and dark mode."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt

from meal.core.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd

_INK = "#0a0b0c"  # stands for the text colour until the file is written
_STYLE = (
    "<style>svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}"
    "text{fill:currentColor}</style>"
)

# Text stays text: the browser has the letters that matplotlib's font lacks.
warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
matplotlib.rcParams.update(
    {
        "svg.hashsalt": "meal",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "savefig.transparent": True,
        **dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK
        ),
    }
)

# Medium lightness: visible on both white and black.
COLOURS = {
    "student": "#e8590c",
    "baseline": "#9a6dd7",
    "ensemble": "#3b82f6",
    "ensemble_fitted": "#0ea5b7",
}
TEACHER_COLOURS = ("#2f9e62", "#b7791f", "#d6409f", "#7c8a0a", "#64748b", "#a0522d")
TEACHER_MARKERS = "osDv^P"
BLACK, WHITE = "#101112", "#fefefe"  # for text on a colour, and unlike _INK, which is replaced


def save(figure: Any, path: Path) -> None:
    """Write a figure and close it."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
    text = drawn.getvalue().replace(_INK, "currentColor")
    start = text.index("<svg")
    end = text.index(">", start) + 1
    with atomic_path(path) as temporary:
        temporary.write_text(text[:end] + _STYLE + text[end:], encoding="utf-8")


def seeds_figure(table: pd.DataFrame, score: str, path: Path) -> None:
    """Mean and std of each row of `experiments.table.summarise`."""
    factors = list(table.columns[: list(table.columns).index("seeds")])
    labels = [", ".join(_short(key, row[key]) for key in factors) for _, row in table.iterrows()]
    figure, axis = plt.subplots(figsize=(6.5, 0.9 + 0.3 * len(table)))
    places = range(len(table))
    axis.errorbar(
        table["mean"], places, xerr=table["std"].fillna(0), fmt="o", capsize=3, markersize=5
    )
    axis.set_yticks(places, labels)
    axis.invert_yaxis()
    axis.set_xlabel(f"{score}: mean and std over seeds")
    axis.grid(axis="x", alpha=0.3)
    save(figure, path)


def margins_figure(
    table: pd.DataFrame, key: str, models: Sequence[str], cost: pd.DataFrame, path: Path
) -> None:
    """The error of each model along a parameter, and against its cost for one of the values.

    Args:
        table: rows of `experiments.margins.along`.
        key: the parameter.
        models: those to draw along it.
        cost: of `experiments.margins.at_cost`, for the row with the most seeds.
        path: the file to write.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.2, 3.4), sharey=True, width_ratios=(3, 2), layout="constrained"
    )
    name = {"data.labelled": "number of labels"}.get(key, key)
    places = range(len(table))
    for model in models:
        colour = COLOURS[model]
        left.plot(places, table[model], color=colour, marker="o", label=model)
        left.fill_between(
            places, table[f"{model} low"], table[f"{model} high"], color=colour, alpha=0.2
        )
    left.set_xticks(places, [str(value) for value in table[key]])
    left.set_xlabel(name)
    left.set_ylabel("test error (%)")
    left.set_ylim(bottom=0)
    left.legend()
    groups = {model: cost[cost["model"] == model] for model in models}
    groups = {"teachers": cost[~cost["model"].isin(models)], **groups}
    for group, rows in groups.items():
        right.errorbar(
            rows["macs"] / 1e6, rows["error"],
            yerr=[rows["error"] - rows["low"], rows["high"] - rows["error"]],
            fmt={"student": "*", "teachers": "s"}.get(group, "o"),
            color=COLOURS.get(group, TEACHER_COLOURS[4]), capsize=3,
            markersize=12 if group == "student" else 6,
            label="teachers" if group == "teachers" else None,
        )  # fmt: skip
    right.legend()
    value = table[key].iloc[int(table["seeds"].to_numpy().argmax())]
    right.set_title(f"{name}: {value}", fontsize=9)
    right.set_xlabel("multiply-adds per image (millions)")
    right.set_xlim(left=0)
    for axis in (left, right):
        axis.grid(axis="y", alpha=0.3)
    save(figure, path)


def _short(key: str, value: object) -> str:
    text = str(value).replace("'", "").strip("[]") or "none"
    name = key.rsplit(".", 1)[-1]
    return text if name in ("adversarial", "selection", "teachers") else f"{name} {text}"
