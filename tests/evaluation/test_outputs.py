from __future__ import annotations

from pathlib import Path

import numpy as np

from meal.evaluation.outputs import kept
from meal.metrics import Floats


def test_arrays_are_computed_once_and_again_if_damaged(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> Floats:
        calls.append(1)
        return np.arange(6, dtype=np.float32).reshape(3, 2)

    file = tmp_path / "student-test.npz"
    assert [kept(file, compute).tolist() for _ in range(2)] == 2 * [[[0, 1], [2, 3], [4, 5]]]
    assert len(calls) == 1
    whole = file.read_bytes()
    for damaged in (
        whole.replace(np.float32(3).tobytes(), np.float32(7).tobytes()),  # one value
        whole[: len(whole) // 2],
        b"",
    ):
        file.write_bytes(damaged)
        assert kept(file, compute)[1, 1] == 3
        assert file.read_bytes() == whole
    assert len(calls) == 4
