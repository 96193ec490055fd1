from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from meal.core.errors import UserError
from meal.experiments.margins import SCORES, along, margins, readable
from meal.report.figures import margins_figure


def runs() -> pd.DataFrame:
    """Two seeds with 100 labels, 400, and all; a third kind of run with another pool."""
    rows = []
    for labels, pool, offset in (
        ("all", "all", 1.0), (400, "all", 2.0), (100, "all", 4.0), (100, "labelled", 5.0),
    ):  # fmt: skip
        for seed in (0, 1):
            student = offset + seed
            scores = {
                "baseline.top1_error": student + 2 + seed,
                "ensemble.top1_error": student + 1,
                "student.top1_error": student,
                "gain.over_baseline": 2.0 + seed,
                "gain.over_ensemble": 1.0,
                "gain.over_best_teacher": -0.5,
            }
            rows.append({"data.labelled": labels, "distill.pool": pool, "seed": seed, **scores})
    return pd.DataFrame(rows).assign(student="resnet")


def test_each_rival_is_compared_within_the_runs() -> None:
    table = margins(runs())
    assert list(table["data.labelled"]) == ["100", "100", "400", "all"]
    first = table.iloc[0]
    assert first["seeds"] == 2 and first["student"] == pytest.approx(4.5)
    assert first["minus baseline"] == pytest.approx(-2.5)
    half = 12.706 * 0.5  # Student's t for one degree of freedom, times the standard error
    assert first["minus baseline low"] == pytest.approx(-2.5 - half, abs=0.01)
    assert first["minus baseline high"] == pytest.approx(-2.5 + half, abs=0.01)
    assert first["minus ensemble"] == first["minus ensemble high"] == -1
    assert first["minus best teacher"] == 0.5
    shown = readable(table)
    assert shown["minus ensemble"][0] == "-1.00 (-1.00 to -1.00)"
    assert set(SCORES).isdisjoint(shown.columns)


def test_the_picture_follows_one_parameter(tmp_path: Path) -> None:
    rows = along(margins(runs()), "data.labelled")
    assert list(rows["data.labelled"]) == ["100", "400", "all"]
    assert set(rows["distill.pool"]) == {"all"}
    margins_figure(rows, "data.labelled", ("baseline", "student"), tmp_path / "a.svg")
    assert "number of labels" in (tmp_path / "a.svg").read_text()
    with pytest.raises(UserError, match="--along student: it does not vary; these do: data"):
        along(margins(runs()), "student")


def test_one_kind_of_run_is_one_row() -> None:
    table = margins(runs().query("`data.labelled` == 'all'"))
    assert len(table) == 1 and table["seeds"][0] == 2


def test_a_repeated_seed_is_not_another_one() -> None:
    twice = pd.concat([runs(), runs().assign(**{"student.top1_error": 9.0})])
    with pytest.raises(UserError, match="experiments with equal parameters have different scores"):
        margins(twice)
