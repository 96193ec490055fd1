"""What a teacher is worth, by hand, for teachers that are good, redundant or harmful."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from meal.core.files import write_sealed
from meal.evaluation.worth import teachers_worth
from meal.report.tables import worth_note, worth_rows
from meal.targets.cache import seal
from meal.targets.ensemble import Ensemble

IMAGES = 1000
LABELS = np.arange(IMAGES) % 4


def logits(wrong: NDArray[Any], confidence: float = 4.0) -> NDArray[np.float32]:
    """Logits that are wrong in the images whose numbers are given."""
    predicted = LABELS.copy()
    predicted[wrong] = (predicted[wrong] + 1) % 4
    return (confidence * np.eye(4)[predicted]).astype(np.float32)


def ensemble(folder: Path, members: dict[str, NDArray[np.float32]]) -> Ensemble:
    for name, own in {**members, "mean": logits(np.arange(0))}.items():
        (folder / name).mkdir(parents=True)
        for split in ("validation", "test"):
            np.save(folder / name / f"{split}_logits.npy", own)
        seal(folder / name, {"blocks": {}, "top_k": None})
    uniform = [1 / len(members)] * len(members)
    card = {"teachers": [*members], "weights": {"uniform": uniform, "fitted": uniform}}
    write_sealed(folder / "ensemble.json", {**card, "weights_used": "uniform"})
    return Ensemble(folder)


def test_a_teacher_that_helps_and_one_that_harms_are_told_apart(tmp_path: Path) -> None:
    first, second = np.arange(0, 100), np.arange(100, 200)
    members = {
        "one": logits(first, confidence=1.0),
        "two": logits(second, confidence=0.9),
        "sure": logits(np.arange(300, 700), confidence=20.0),  # outvotes both
    }
    rows = {row["teacher"]: row for row in teachers_worth(ensemble(tmp_path, members), LABELS)}
    sure = rows["sure"]
    assert sure["error"] == 40.0 and sure["weight"] == pytest.approx(0.333)
    # Where the others disagree, the surer of the two decides.
    assert sure["error_without"] == 10.0 and sure["gain"] == -30.0 and sure["high"] < 0
    assert sure["reading"] == "makes the ensemble worse"
    assert sure["disagreement"] >= 40
    for name in ("one", "two"):
        assert rows[name]["error"] == 10.0
        assert rows[name]["error_without"] == 40.0  # the sure one decides, with either
        assert rows[name]["gain"] == 0 and rows[name]["reading"] == "inside the noise"
    assert worth_note([*rows.values()]).endswith(
        "Without it, the ensemble is better: sure (each alone)."
    )


def test_a_teacher_that_decides_between_the_others_helps(tmp_path: Path) -> None:
    members = {
        "a": logits(np.arange(0, 200), confidence=4.0),
        "b": logits(np.arange(200, 400), confidence=3.5),
        "c": logits(np.arange(400, 600), confidence=3.0),
    }
    rows = teachers_worth(ensemble(tmp_path, members), LABELS)
    for row in rows:  # all three together are never wrong: two of them always agree
        assert row["gain"] == row["error_without"] == 20.0 and row["low"] > 0
        assert row["reading"] == "helps"
    assert "is better" not in worth_note(rows)


def test_a_single_teacher_has_no_others(tmp_path: Path) -> None:
    rows = teachers_worth(ensemble(tmp_path, {"only": logits(np.arange(50))}), LABELS)
    assert [*worth_rows(rows)[0]] == ["teacher", "error (%)", "NLL", "fitted weight"]
    assert rows[0]["error"] == 5.0
