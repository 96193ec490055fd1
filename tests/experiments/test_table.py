from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from meal.core.errors import UserError
from meal.experiments.table import select, summarise


def runs() -> pd.DataFrame:
    """Two modes, with and without blocks, seeds 0 to 2; `off` without blocks has only two seeds."""
    scores = {
        ("off", "[]"): [5.0, 6.0],
        ("minimax", "[]"): [5.5, 6.7, 9.0],
        ("off", "[1]"): [4.0, 4.0, 4.0],
        ("minimax", "[1]"): [3.0, 3.1, 2.9],
    }
    rows = [
        {
            "distill.adversarial": mode,
            "distill.blocks": blocks,
            "distill.seed": seed,
            "score": value,
        }
        for (mode, blocks), values in scores.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(student="resnet")


def row(table: pd.DataFrame, mode: str, blocks: str) -> pd.Series:
    chosen = table[(table["distill.adversarial"] == mode) & (table["distill.blocks"] == blocks)]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_mean_and_std_over_the_seeds() -> None:
    table = summarise(runs(), {})
    assert "student" not in table.columns and "difference" not in table.columns
    found = row(table, "minimax", "[]")
    assert found["seeds"] == 3
    assert found["mean"] == pytest.approx((5.5 + 6.7 + 9.0) / 3)
    assert found["std"] == pytest.approx(np.std([5.5, 6.7, 9.0], ddof=1))


def test_differences_are_paired_by_seed_with_equal_other_parameters() -> None:
    table = summarise(runs(), {"distill.adversarial": "off"})
    with_blocks = row(table, "minimax", "[1]")
    assert with_blocks["difference"] == pytest.approx(-1.0)
    half = 4.302653 * 0.1 / 3**0.5  # Student's t, two degrees of freedom
    assert with_blocks["low"] == pytest.approx(-1 - half, abs=1e-6)
    assert with_blocks["high"] == pytest.approx(-1 + half, abs=1e-6)
    assert with_blocks["reading"] == "lower"
    logits = row(table, "minimax", "[]")  # seed 2 has no partner
    assert logits["difference"] == pytest.approx((0.5 + 0.7) / 2)
    assert logits["reading"] == "inside the noise"
    assert np.isnan(row(table, "off", "[1]")["difference"])


def test_one_seed_gives_no_interval() -> None:
    table = summarise(runs().query("`distill.seed` == 0"), {"distill.adversarial": "off"})
    assert row(table, "minimax", "[1]")["reading"] == "one seed gives no interval"


def test_where_keeps_only_the_rows_with_a_value() -> None:
    chosen = select(runs(), {"distill.blocks": "[1]", "distill.seed": "2.0"})
    assert sorted(chosen["score"]) == [2.9, 4.0]
    with pytest.raises(UserError, match=r"distill.seed=7: no experiment has it; allowed: 0, 1, 2"):
        select(runs(), {"distill.seed": "7"})
    with pytest.raises(UserError, match=r"distill.sed: not a parameter"):
        select(runs(), {"distill.sed": "7"})


def test_a_reference_that_does_not_vary_is_an_error() -> None:
    with pytest.raises(
        UserError, match=r"student: it does not vary; these do: distill.adversarial"
    ):
        summarise(runs(), {"student": "resnet"})


def test_different_scores_for_equal_parameters_are_an_error() -> None:
    twice = pd.concat([runs(), runs().head(1).assign(score=9.9)])
    with pytest.raises(UserError, match=r"equal parameters \(.*\) have different scores"):
        summarise(twice, {})
    alone = pd.DataFrame({"student": ["resnet", "resnet"], "score": [3.0, 4.0]})
    with pytest.raises(UserError, match="equal parameters have different scores"):
        summarise(alone, {})


def test_rows_are_in_the_order_of_their_numbers_and_words_come_last() -> None:
    values = [1000, "all", 200, 500]
    found = summarise(pd.DataFrame({"data.labelled": values, "score": [1.0, 2.0, 3.0, 4.0]}), {})
    assert list(found["data.labelled"]) == ["200", "500", "1000", "all"]
