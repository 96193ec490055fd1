from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from meal.core.errors import UserError
from meal.evaluation.predictions import ModelPredictions, Predictions
from meal.experiments.margins import SCORES, along, at_cost, margins, most_repeated, readable
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
            }
            rows.append({"data.labelled": labels, "distill.pool": pool, "seed": seed, **scores})
    return pd.DataFrame(rows, [f"run {n}" for n in range(len(rows))]).assign(student="resnet")


def predictions(table: pd.DataFrame) -> dict[str, Predictions]:
    """1,000 test images in two classes; each model is wrong on the first ones."""
    found = {}
    for index, row in table.iterrows():
        errors = {
            model: row[f"{model}.top1_error"] for model in ("student", "baseline", "ensemble")
        }
        errors["ensemble_fitted"] = errors["ensemble"]
        errors |= {"teachers/a": errors["ensemble"] + 3, "teachers/b": errors["ensemble"] + 1}
        models = {}
        for model, error in errors.items():
            wrong = (np.arange(1000) < round(10 * error)).astype(np.int32)
            some = np.zeros(1000, np.float32)
            models[model] = ModelPredictions(wrong, some, some, some)
        zeros = np.zeros(1000, np.int32)
        found[str(index)] = Predictions(zeros, models, zeros, {})
    return found


def table() -> pd.DataFrame:
    return margins(runs(), predictions(runs()))


def test_each_rival_is_compared_within_the_runs() -> None:
    found = table()
    assert list(found["data.labelled"]) == ["100", "100", "400", "all"]
    first = found.iloc[0]
    assert first["seeds"] == 2 and first["student"] == pytest.approx(4.5)
    half = 12.706 * 0.5  # Student's t for one degree of freedom, times the standard error
    assert first["student low"] == pytest.approx(4.5 - half, abs=0.01)
    assert first["student high"] == pytest.approx(4.5 + half, abs=0.01)
    assert first["minus baseline"] == pytest.approx(-2.5)  # 2 and 3 points
    assert first["minus ensemble"] == first["minus ensemble_fitted"] == -1
    assert first["minus best teacher"] == -2
    shown = readable(found)
    assert shown["minus ensemble"][0].startswith("-1.00 (-1.")
    assert set(SCORES).isdisjoint(shown.columns)


def test_intervals_of_margins_span_images_and_seeds() -> None:
    found = table()
    # The student is better than the ensemble on 10 images in each run, but not on the same ones:
    # half a run better on 20 images. The seeds agree on the number, so only the images vary.
    spread = 1.96 * 100 * ((0.02 * 0.5**2 - 0.01**2) / 999 + 2 / 1002**2) ** 0.5
    assert found["minus ensemble low"][0] == pytest.approx(-1 - spread, abs=0.01)
    # One run is 20 images better than the baseline, the other 30: two seeds say little.
    assert found["minus baseline low"][0] < -2.5 - 2 * spread


def test_the_picture_follows_one_parameter(tmp_path: Path) -> None:
    rows = along(table(), "data.labelled")
    assert list(rows["data.labelled"]) == ["100", "400", "all"]
    assert set(rows["distill.pool"]) == {"all"}
    own = most_repeated(rows, runs())
    assert list(own.index) == ["run 4", "run 5"]
    found = predictions(runs())
    cost = {
        "student_macs": 4e6, "ensemble_macs": 20e6,
        "teachers": {"a": {"macs": 12e6}, "b": {"macs": 8e6}},
    }  # fmt: skip
    costs = at_cost([found[str(index)] for index in own.index], cost)
    assert list(costs["model"]) == ["teachers/a", "teachers/b", "ensemble", "baseline", "student"]
    assert list(costs["macs"]) == [12e6, 8e6, 20e6, 4e6, 4e6]
    assert list(costs["error"]) == pytest.approx([8.5, 6.5, 5.5, 7.0, 4.5])
    margins_figure(rows, "data.labelled", ("baseline", "student"), costs, tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text()
    assert "number of labels: 100" in drawn and "multiply-adds per image (millions)" in drawn
    assert drawn.count(">teachers<") == 1
    with pytest.raises(UserError, match="--along student: it does not vary; these do: data"):
        along(table(), "student")


def test_what_varies_together_with_the_axis_does_not_take_rows_from_the_picture() -> None:
    rows = table()
    rows = rows[rows["distill.pool"] == "all"].assign(**{"distill.pool": ["a", "a", "b"]})
    assert list(along(rows, "data.labelled")["data.labelled"]) == ["100", "400", "all"]


def test_one_kind_of_run_is_one_row() -> None:
    some = runs().query("`data.labelled` == 'all'")
    found = margins(some, predictions(some))
    assert len(found) == 1 and found["seeds"][0] == 2
    single = some[:1]
    alone = margins(single, predictions(single)).iloc[0]
    assert np.isnan(alone["student low"]) and alone["minus ensemble low"] < -1  # images alone


def test_runs_with_other_test_images_are_not_compared() -> None:
    some = runs().query("`data.labelled` == 'all'")
    for other in ({"labels": np.ones(1000, np.int32)}, {"card": {"images": "another digest"}}):
        found = predictions(some)
        found[min(found)] = replace(found[min(found)], **other)
        with pytest.raises(UserError, match="different test images; choose some with --where"):
            margins(some, found)


def test_a_repeated_seed_is_not_another_one() -> None:
    twice = pd.concat([runs(), runs().assign(**{"student.top1_error": 9.0})])
    with pytest.raises(UserError, match=r"equal parameters \(.*\) have different scores"):
        margins(twice, predictions(twice))
