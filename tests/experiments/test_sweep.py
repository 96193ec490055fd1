from __future__ import annotations

import re
from pathlib import Path

import pytest

from meal.core.errors import UserError
from meal.experiments.sweep import plan
from tests.conftest import ROOT

PARAMS = ROOT / "params.yaml"


def test_a_grid_gives_every_combination_a_name() -> None:
    grid = ["distill.adversarial=off,minimax", "distill.blocks=[],[1,2,3]", "distill.lr=0.1"]
    trials = plan(grid, PARAMS)
    assert [trial.overrides for trial in trials] == [
        (f"distill.adversarial={mode}", f"distill.blocks={blocks}", "distill.lr=0.1")
        for mode in ("off", "minimax")
        for blocks in ("[]", "[1,2,3]")
    ]
    names = [re.sub("-[0-9a-f]{8}$", "", trial.name) for trial in trials]
    assert names == [
        "adversarial-off-blocks-none",
        "adversarial-off-blocks-1-2-3",
        "adversarial-minimax-blocks-none",
        "adversarial-minimax-blocks-1-2-3",
    ]


def test_names_depend_on_all_parameters(tmp_path: Path) -> None:
    changed = tmp_path / "params.yaml"
    changed.write_text(PARAMS.read_text().replace("beta: 0.1", "beta: 0.5"))
    grid = ["distill.seed=0,1"]
    first, again, other = plan(grid, PARAMS), plan(grid, PARAMS), plan(grid, changed)
    assert first == again
    assert not {trial.name for trial in first} & {trial.name for trial in other}


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (["distill.adversarial=off,mini"], r"distill.adversarial='mini': must be 'off'"),
        (["dataset=nope,digits"], r"dataset='nope': unknown; allowed: cifar10, .*, digits"),
        (["cache.top_k=10", "distill.temperature=1"], r"cache.top_k=10: digits has 10 classes"),
        (["distill.sed=1"], r"-S distill.sed=1: not a key of params.yaml"),
        (["distill.seed=[1"], r"-S distill.seed=\[1: no viable alternative"),
    ],
)
def test_a_fault_in_any_combination_is_found_before_the_first_runs(
    grid: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan(grid, PARAMS)
