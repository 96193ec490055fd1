"""Benchmarks run on machines that tests do not have: here only whether they run, on a miniature."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks import throughput


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    monkeypatch.setattr(
        throughput, "report", lambda name, rows, note: found.update({name: rows, "note": note})
    )
    return found


def test_every_kind_of_training_has_its_share_of_the_limit(
    reported: dict[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "SIZES", {"cpu": (0.0625, 64), "cuda": (0.0625, 64)})
    monkeypatch.setattr(throughput, "BATCH", 32)
    monkeypatch.setattr(throughput, "MODES", {"cpu": (("float32", "none"),)})
    monkeypatch.setattr(throughput, "TEACHERS", (2,))
    throughput.run()
    rows = reported["throughput"]
    assert [row["training"] for row in rows] == ["labels", "MEAL, 2 teachers"]
    assert all(row["of_limit"] > 0 and row["images_per_second"] > 0 for row in rows)


def test_the_forecast_adds_up_all_stages_of_the_recipe(
    reported: dict[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = {"supervised": 1000.0, "forward": 4000.0, "distilled": 900.0}
    for name, speed in speeds.items():
        monkeypatch.setattr(throughput.Bench, name, lambda *args, speed=speed, **kwargs: speed)
    throughput.run_cifar10()
    hours = {row["stage"]: row["hours"] for row in reported["cifar10"]}
    assert len(hours) == 12 and hours["teacher@vgg"] == round(350 * 45_000 / 1000 / 3600, 2)
    assert hours["cache@dpn"] == round(163 * 45_000 / 4000 / 3600, 2)
    assert hours["distill"] == round(350 * 45_000 / 900 / 3600, 2)
