"""Several ranks train as one process does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from meal.core import launch, ranks
from meal.core.errors import UserError
from tests.conftest import ROOT
from tests.training.ranks import CASES

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def results(file: Path, processes: int) -> dict[str, Any]:
    launcher = [] if processes == 1 else [*TORCHRUN, str(processes)]
    ended = subprocess.run(
        [sys.executable, *launcher, "-m", "tests.training.ranks", str(file)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = torch.load(file, weights_only=False)
    return found


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    return {number: results(folder / str(number), number) for number in (1, 3)}


@pytest.mark.parametrize("name", CASES)
def test_ranks_train_like_one_process(name: str, states: dict[int, dict[str, Any]]) -> None:
    one, several = (states[number][name] for number in (1, 3))
    limit = 0.02 if name == "bfloat16" else 2e-5
    for part in ("state", "objective"):
        assert one[part].keys() == several[part].keys()
        for key, values in one[part].items():
            assert torch.allclose(several[part][key], values, rtol=limit, atol=limit), key
    assert several["history"][-1]["loss"] == pytest.approx(one["history"][-1]["loss"], abs=limit)


def test_the_ranges_of_ranks_cover_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "size", lambda: 3)
    for count in (0, 1, 2, 3, 10):
        every = [range(count)[ranks.of_rank(count, rank)] for rank in range(3)]
        assert [index for own in every for index in own] == list(range(count))
    assert [len(range(10)[ranks.of_rank(10, rank)]) for rank in range(3)] == [4, 3, 3]
    with pytest.raises(UserError, match=r"batch_size=128: a batch of 128 .* multiple of 3, or"):
        ranks.check_divisible("distill.batch_size", 128, 500)
    with pytest.raises(UserError, match=r"a batch of 100 .* multiple of 3 of at most 100, the"):
        ranks.check_divisible("distill.batch_size", 129, 100)
    assert ranks.check_divisible("distill.batch_size", 129, 500) == 129
    assert ranks.check_divisible("distill.batch_size", 129, 99) == 99


def failure(exitcode: int, message: str = "", **extra: object) -> Any:
    """What torch's launcher knows of a rank that has failed."""
    found: object = message
    if message:
        usual = {"py_callstack": "", "saved": "", "signal": 0, "follows": False}
        found = {"message": message, "extraInfo": usual | extra}
    return SimpleNamespace(exitcode=exitcode, message=found)


FAILURES = {
    "the earliest": {
        0: failure(1, "late", nanoseconds=2), 1: failure(1, "the disk is full", nanoseconds=1),
    },
    "not one that the launcher has ended": {
        0: failure(-signal.SIGTERM), 1: failure(1, "the disk is full", nanoseconds=1),
    },
    "not one whose partner has gone": {
        0: failure(1, "Connection closed", nanoseconds=1, follows=True),
        1: failure(1, "the disk is full", nanoseconds=2),
    },
    "one that was killed": {
        0: failure(1, "Connection closed", nanoseconds=1, follows=True), 1: failure(-9),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_the_error_of_the_cause_is_printed(name: str) -> None:
    with pytest.raises(UserError, match=r"the disk is full|process 1 was ended by SIGKILL"):
        launch._raise_cause(FAILURES[name])
