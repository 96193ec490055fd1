from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from meal.advice.advice import COLLECT, DISTILL, STOP, Hindsight, advise, hindsight
from meal.advice.facts import Facts, facts_of
from meal.advice.forecast import features, forecast, outcome, quality, read_studies
from meal.core.errors import UserError

FACTS = Facts(
    classes=10, labels=200, unlabelled=1800, hidden=0, validation=1000, baseline_train_error=0.0,
    baseline_error=20.0, best_teacher_error=18.0, ensemble_error=16.0, teachers=3,
    disagreement=9.0, student_parameters=100, teacher_parameters=200, student_macs=1,
    ensemble_macs=4,
)  # fmt: skip


def runs(noise: float = 0.05, slope: float = -0.2) -> pd.DataFrame:
    """Two datasets with six runs each: with `slope`, more images per label give fewer errors."""
    generator = np.random.default_rng(3)
    rows = []
    for dataset, labels in (("a", 100), ("b", 1000)):
        for share in (1, 4, 16):
            for seed in range(3):
                ratio = np.exp(slope * np.log(share) + noise * generator.normal())
                facts = replace(FACTS, labels=labels, unlabelled=labels * (share - 1))
                rows.append(
                    {
                        "dataset": dataset, "labelled": str(labels), "student": "s", "pool": "all",
                        "seed": seed, **asdict(facts), "test": 1000, "baseline_test": 20.0,
                        "student_test": 20 * ratio, "ensemble_test": 19.0,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def test_facts_come_from_what_the_stages_have_written() -> None:
    card = {
        "classes": ["a", "b"], "labels": {"train": 9, "validation": 1}, "unlabelled": 90,
    }  # fmt: skip
    baseline = {"train": {"baseline": {"top1_error": 1.0}}}
    baseline["validation"] = {"baseline": {"top1_error": 8.0}}
    worth = [{"error": 7.0, "disagreement": 4.0}, {"error": 6.0, "disagreement": 8.0}]
    cost = {
        "student_parameters": 5, "student_macs": 50, "ensemble_macs": 100,
        "teachers": {"a": {"parameters": 10}, "b": {"parameters": 20}},
    }  # fmt: skip
    found = facts_of(card, baseline, 5.0, worth, cost, "all")
    assert found == Facts(2, 9, 90, 0, 1, 1.0, 8.0, 6.0, 5.0, 2, 6.0, 5, 15, 50, 100)
    # What the student does not see is no help to it; a single teacher disagrees with nobody.
    apart = facts_of(card, baseline, 5.0, worth, cost, "labelled")
    assert (apart.unlabelled, apart.hidden) == (0, 90)
    assert facts_of(card, baseline, 6.0, [{"error": 6.0}], cost, "all").disagreement == 0


def test_features_and_outcome_by_hand() -> None:
    found = features(pd.DataFrame([asdict(FACTS)])).iloc[0]
    assert found["labels per class"] == pytest.approx(np.log(20))
    assert found["images per label"] == pytest.approx(np.log(10))
    assert found["overfitting"] == 1
    assert found["the ensemble's errors"] == pytest.approx(np.log(0.8))
    # A model without an error on validation counts as half an image, not as nothing.
    perfect = replace(FACTS, validation=50, baseline_error=0.0, ensemble_error=0.0)
    same = features(pd.DataFrame([asdict(perfect)])).iloc[0]
    assert same["overfitting"] == 1 and same["the ensemble's errors"] == 0
    rows = pd.DataFrame({"test": [100], "student_test": [0.0], "baseline_test": [4.0]})
    assert outcome(rows)[0] == pytest.approx(np.log(0.5 / 4))


def test_a_forecast_finds_what_decides_and_says_how_sure_it_is() -> None:
    fit = quality(runs())
    assert (fit.runs, fit.datasets) == (18, 2) and fit.useful
    assert fit.run < 0.1 < fit.constant_run and fit.dataset < fit.constant_dataset
    own = replace(FACTS, unlabelled=200 * 15)
    found = forecast(own, runs(), fit.half_width)
    assert found.ratio == pytest.approx(16**-0.2, rel=0.1)
    assert np.log(found.high / found.ratio) == pytest.approx(fit.half_width)
    assert found.outside == ()
    far = forecast(replace(own, labels=10**6), runs(), fit.half_width)
    assert far.outside == ("labels per class",)


def test_the_first_line_is_what_to_do() -> None:
    rich, poor = replace(FACTS, unlabelled=200 * 15), replace(FACTS, unlabelled=0)
    first = next(advise(rich, runs()).lines())
    assert re.fullmatch(
        r"Distill: the forecast is 3\d% fewer errors than the baseline \(2\d% fewer to 4.*",
        first,
    )
    collect = (
        f"{COLLECT}: there are 0 for 200 labels, and a student gains by following its teachers"
    )
    assert next(advise(poor, runs()).lines()).startswith(collect)
    stop = next(advise(rich, runs(slope=0.2)).lines())
    assert stop.startswith(f"{STOP}: the forecast is ") and "% more errors than the" in stop
    hidden = advise(replace(poor, hidden=1800), runs())
    assert hidden.verdict == DISTILL and "distill.pool=all" in hidden.reason


@pytest.mark.parametrize(
    ("changes", "verdict", "reason"),
    [
        ({}, DISTILL, "1,800 unlabelled images to learn from"),
        ({"unlabelled": 100}, COLLECT, "there are 100 for 200 labels"),
        ({"baseline_train_error": 19.0}, STOP, "does not overfit"),
        ({"ensemble_error": 40.0, "best_teacher_error": 41.0}, STOP, "train better teachers"),
        # 20 images without an error do not show that there is nothing to gain.
        ({"validation": 20, "baseline_error": 0.0, "ensemble_error": 5.0}, DISTILL, "1,800"),
    ],
)
def test_without_a_forecast_the_facts_decide(
    changes: dict[str, Any], verdict: str, reason: str
) -> None:
    blind = runs(noise=0.5, slope=0.0)
    assert not quality(blind).useful
    found = advise(replace(FACTS, **changes), blind)
    assert found.verdict == verdict and reason in found.reason
    assert list(found.lines())[-1].startswith(
        "No forecast, as the mean of all runs is as good: fitted on 18 runs"
    )


def test_what_no_study_has_seen_is_not_forecast() -> None:
    far = advise(replace(FACTS, labels=10**6, unlabelled=10**7), runs())
    assert far.verdict == DISTILL and "10,000,000 unlabelled images" in far.reason
    assert list(far.lines())[-1].endswith("no such run was studied (labels per class).")
    single = runs().query("dataset == 'a'")
    assert not quality(single).useful  # nothing is known about other data
    last = list(advise(FACTS, single).lines())[-1]
    assert last.startswith("No forecast") and "dataset left out" not in last


def test_the_uncertainty_of_few_images_and_a_single_teacher_are_shown() -> None:
    few = replace(FACTS, validation=20, baseline_error=0.0, teachers=1, disagreement=0.0)
    text = "\n".join(advise(few, runs()).lines())
    assert "0.00% (0.0 to 16.1) on 20 validation images" in text
    assert "diversity" not in text and "best teacher" not in text


def test_the_rules_are_held_against_what_the_students_gained() -> None:
    same = runs(noise=0.0, slope=0.0).iloc[:6]
    changes = pd.DataFrame(
        {
            # distill, distill, collect, do not distill, a control, do not distill
            "unlabelled": [1800, 1800, 10, 1800, 0, 1800],
            "hidden": [0, 0, 0, 0, 1800, 0],
            "baseline_train_error": [0.0, 0.0, 0.0, 20.0, 0.0, 20.0],
            "student_test": [18.0, 20.0, 19.0, 21.0, 15.0, 20.0],
        }
    )
    studied = same.drop(columns=changes.columns).join(changes)
    assert hindsight(studied) == Hindsight(distilled=2, gained=1, others=3, missed=1)
    line = list(advise(FACTS, studied).lines())[-2]
    assert line == (
        'In hindsight, these rules say "Distill" for 2 of 5 runs: the student was better than the '
        "baseline in 1 of them, and in 1 of the others."
    )
    assert "In hindsight" not in "\n".join(advise(FACTS, runs()).lines())  # there is a forecast


def test_the_studies_can_be_read() -> None:
    studies = read_studies()
    fit = quality(studies)
    assert fit.runs == len(studies) >= 20 and fit.datasets >= 2
    assert advise(FACTS, studies).verdict in {DISTILL, STOP, COLLECT}


def test_own_runs_are_added(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    mine = runs().assign(dataset="null")
    mine.to_csv(own, index=False)
    added = read_studies(own)
    assert len(added) == len(read_studies()) + 18 and (added["dataset"] == "null").sum() == 18
    for name, value, wrong in (
        ("labels", "1,800", "labels='1,800' in run 1; allowed: a number from 1"),
        ("labels", 0, "labels='0' in run 1"),
        ("disagreement", "", "disagreement='' in run 1; allowed: a number from 0"),
    ):
        mine.assign(**{name: value}).to_csv(own, index=False)
        with pytest.raises(UserError, match=wrong):
            read_studies(own)
    with pytest.raises(UserError, match=r"--runs .*absent.csv"):
        read_studies(tmp_path / "absent.csv")
    mine.drop(columns="disagreement").to_csv(own, index=False)
    with pytest.raises(UserError, match="it lacks disagreement; write it with: meal facts"):
        read_studies(own)
    own.write_text("")
    with pytest.raises(UserError, match="No columns"):
        read_studies(own)
