"""The picture of the benchmarks: the cost of a step by number of teachers."""

from __future__ import annotations

import pandas as pd

from meal.core.files import read_json
from tests.benchmarks.common import REPORTS


def draw() -> None:
    """Draw `step_cost.json` as one SVG."""
    from meal.report.figures import plt, save

    frame = pd.DataFrame(read_json(REPORTS / "step_cost.json", "make bench")["rows"])
    students = list(dict.fromkeys(frame["student"]))
    figure, axes = plt.subplots(1, len(students), figsize=(4.2 * len(students), 3.4), sharey=True)
    for axis, student in zip(axes, students, strict=True):
        own = frame[frame["student"] == student]
        sides = own["mode"].str.partition("_")[0] + ", " + own["selection"].fillna("labels")
        for mode, rows in own.groupby(sides, sort=False):
            axis.plot(rows["teachers"], rows["ratio"], marker="o", label=str(mode))
        axis.set(title=f"student: {student}", xlabel="teachers", yscale="log")
        axis.set_xticks(sorted(set(frame["teachers"])))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("cost of a step\n(plain supervised step = 1)")
    axes[-1].legend(fontsize=8, loc="upper left")
    figure.tight_layout()
    save(figure, REPORTS / "step_cost.svg")
