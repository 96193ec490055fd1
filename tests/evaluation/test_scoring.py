"""All models are scored one after the other, and their predictions are kept."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from meal import metrics
from meal.core.files import write_sealed
from meal.data.prepared import Split
from meal.evaluation import scoring, timings
from meal.evaluation.curves import write_tables
from meal.evaluation.predictions import Predictions
from meal.evaluation.scoring import ModelOutputs, score_models
from meal.evaluation.timings import measure
from meal.metrics import log_softmax
from meal.models.spec import NetworkSpec
from meal.targets.cache import seal
from meal.targets.ensemble import Ensemble

LABELS, CHECKED = np.arange(60) % 6, np.arange(30) % 6
SPLITS: tuple[Split, Split] = ("test", "validation")
NAMES = ["teachers/a", "teachers/b", "ensemble", "ensemble_fitted", "baseline", "student"]


def outputs() -> Iterator[ModelOutputs]:
    for seed, name in enumerate(NAMES):
        generator = np.random.default_rng(seed)
        sides = [
            log_softmax(2 * np.eye(6)[labels] + generator.normal(size=(len(labels), 6)))
            for labels in (LABELS, CHECKED)
        ]
        yield ModelOutputs(name, sides[0], sides[1])


@pytest.fixture
def predictions() -> Predictions:
    card = {"classes": list("abcdef"), "images": "0"}
    return score_models(outputs(), LABELS, CHECKED, card).predictions


def test_every_model_has_every_metric() -> None:
    card = {"classes": list("abcdef")}
    scores = score_models(outputs(), LABELS, CHECKED, card).metrics
    metrics = {"top1_error", "top5_error", "nll", "brier", "ece", "ece_scaled", "temperature"}
    for model in ("student", "baseline", "ensemble", "ensemble_fitted"):
        assert set(scores[model]) == metrics
    assert set(scores["teachers"]) == {"a", "b"} and set(scores["teachers"]["a"]) == metrics
    assert set(scores["vote"]) == {"top1_error"}
    for rival in ("ensemble", "baseline"):
        row = scores["significance"][f"student_minus_{rival}"]
        error = scores["student"]["top1_error"] - scores[rival]["top1_error"]
        assert row["points"] == pytest.approx(error, abs=0.011)
        assert row["low"] <= row["points"] <= row["high"] and 0 < row["mcnemar_p"] <= 1


def test_predictions_survive_saving_and_loading(predictions: Predictions, tmp_path: Path) -> None:
    predictions.save(tmp_path / "predictions")
    again = Predictions.load(tmp_path / "predictions")
    assert list(again.models) == NAMES and list(again.teachers) == ["a", "b"]
    assert np.array_equal(again.labels, LABELS) and again.card["classes"] == list("abcdef")
    student = dict(zip(NAMES, outputs(), strict=True))["student"].test
    own = again.models["student"]
    assert np.array_equal(own.predicted, student.argmax(axis=1))
    assert own.log_likelihood == pytest.approx(student[np.arange(60), LABELS], abs=1e-6)
    assert own.confidence == pytest.approx(np.exp(student.max(axis=1)), abs=1e-6)
    size = sum(f.stat().st_size for f in (tmp_path / "predictions").iterdir())
    assert size < 60 * len(NAMES) * 16 + 6000  # small: 16 bytes per prediction


def test_the_tables_that_dvc_plots(predictions: Predictions, tmp_path: Path) -> None:
    write_tables(predictions, tmp_path)
    rows = [row.split(",") for row in (tmp_path / "confusion.csv").read_text().splitlines()]
    assert rows[0] == ["label", "prediction", "images"]
    assert sum(int(images) for *_, images in rows[1:]) == 60
    curve = (tmp_path / "reliability" / "student.csv").read_text().splitlines()
    assert curve[0] == "confidence,accuracy,images"
    assert sum(int(row.split(",")[2]) for row in curve[1:]) == 60
    assert len((tmp_path / "classes.csv").read_text().splitlines()) == 7


def test_timings_cover_every_model_relative_to_the_student() -> None:
    spec = NetworkSpec("tiny", 1.0, 1, 16, 3)
    rows = measure(spec, {"one": spec, "student": spec}, torch.device("cpu"), repeats=3).models
    assert list(rows) == ["student", "ensemble", "teachers/one", "teachers/student"]
    assert rows["student"]["latency_ratio"] == 1.0
    assert all(value > 0 for row in rows.values() for value in row.values())


def test_timings_are_repeated_until_they_are_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """One slow block, as on a busy machine, is measured again."""
    blocks = iter([9.2, 1.05, 1.04, 2.0, 2.02])
    monkeypatch.setattr(timings, "_fastest", lambda sides, *_: dict.fromkeys(sides, next(blocks)))
    spec = NetworkSpec("tiny", 1.0, 1, 16, 3)
    found = measure(spec, {"one": spec}, torch.device("cpu"), repeats=5)
    assert (found.rounds, found.steady) == (15, True)
    assert found.models["student"]["latency_ms"] == 1040
    changing = (2.0**k for k in range(100))
    monkeypatch.setattr(timings, "_fastest", lambda sides, *_: dict.fromkeys(sides, next(changing)))
    assert not measure(spec, {"one": spec}, torch.device("cpu"), repeats=5).steady


def test_memory_does_not_grow_with_the_number_of_teachers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most ten matrices of an output's size are in memory; the rest is read from disk."""
    images, classes = 2000, 200
    monkeypatch.setattr(metrics, "_ROWS", 100)
    # Resampling needs the same memory for any number of classes and teachers.
    monkeypatch.setattr(scoring, "compare_with_rivals", lambda predictions: {})
    labels = np.arange(images) % classes
    matrix = images * classes * 8
    peaks = []
    for run, teachers in enumerate((2, 2, 7)):  # the first imports libraries
        folder = tmp_path / str(run)
        names = [f"t{number}" for number in range(teachers)]
        for name in [*names, "mean"]:
            (folder / name).mkdir(parents=True)
            for split in ("validation", "test"):
                logits = np.random.default_rng(0).normal(size=(images, classes))
                np.save(folder / name / f"{split}_logits.npy", logits.astype(np.float32))
            seal(folder / name, {"blocks": {}, "top_k": None})
        weights = {kind: [1 / teachers] * teachers for kind in ("uniform", "fitted")}
        card = {"teachers": names, "weights": weights, "weights_used": "uniform"}
        write_sealed(folder / "ensemble.json", card)
        opened = Ensemble(folder)

        def models(opened: Ensemble = opened) -> Iterator[ModelOutputs]:
            both = (opened.each_log_probabilities(split) for split in SPLITS)
            for (name, test), (_, validation) in zip(*both, strict=True):
                yield ModelOutputs(
                    f"teachers/{name}" if name in opened.members else name, test, validation
                )
            for name in ("baseline", "student"):
                yield ModelOutputs(
                    name, *(log_softmax(opened.mean.plain_logits(split)) for split in SPLITS)
                )

        tracemalloc.start()
        score_models(models(), labels, labels, {"classes": list(map(str, range(classes)))})
        peaks.append(tracemalloc.get_traced_memory()[1] / matrix)
        tracemalloc.stop()
    assert max(peaks[1:]) < 10
    assert peaks[2] < 1.1 * peaks[1]
