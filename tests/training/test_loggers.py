"""Training curves in trackers, without a network: what was written can be read back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from meal.core import runtime
from meal.core.errors import UserError
from meal.core.runtime import Logger, Runtime
from meal.core.seeds import Purpose
from meal.core.settings import parse
from meal.core.work import WorkFolder
from meal.data.prepared import Prepared
from meal.supervised.run import train_supervised
from meal.training import loggers
from meal.training.checkpoints import Checkpoints
from meal.training.contract import Trained
from meal.training.loggers import LOGS, open_log
from tests.training.test_engine import CPU, assert_same, config


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # Set and removed again afterwards: the log sets them for a local folder.
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path


def run(data: Prepared, logger: Logger) -> Trained:
    made = Checkpoints(WorkFolder(Path("work") / logger, "teacher@one", {}))
    own = config(epochs=3)
    return train_supervised("teacher@one", Purpose.TEACHER, own, data, CPU, made, None, logger)


def read_tensorboard(name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (LOGS / "tensorboard").iterdir()
    found = EventAccumulator(str(folder))
    found.Reload()
    return [(each.step, each.value) for each in found.Scalars(name)]


def read_mlflow(name: str) -> list[tuple[int, float]]:
    import mlflow

    (made,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert made.info.run_name.startswith("teacher@one")
    points = mlflow.MlflowClient().get_metric_history(made.info.run_id, name)
    return sorted((each.step, each.value) for each in points)


@pytest.mark.parametrize(
    ("logger", "read"), [("tensorboard", read_tensorboard), ("mlflow", read_mlflow)]
)
def test_a_tracker_receives_every_epoch_and_changes_no_result(
    logger: Logger, read: Any, data: Prepared
) -> None:
    logged, plain = run(data, logger), run(data, "none")
    assert_same(logged, plain)
    for name in ("loss", "validation_top1_error"):
        expected = [(int(row["epoch"]), pytest.approx(row[name])) for row in plain.history]
        assert read(name) == expected


@pytest.mark.parametrize(
    ("logger", "read"), [("tensorboard", read_tensorboard), ("mlflow", read_mlflow)]
)
def test_a_resumed_run_has_every_epoch_once(logger: Logger, read: Any) -> None:
    if logger == "tensorboard":  # the interrupted run wrote two epochs, and saved one
        with open_log(logger, "teacher@one", []) as log:
            for epoch in (1, 2):
                log.write({"epoch": epoch, "loss": float(epoch)})
    with open_log(logger, "teacher@one", [{"epoch": 1, "loss": 1.0}]) as log:
        log.write({"epoch": 2, "loss": 20.0})
    assert read("loss") == [(1, 1.0), (2, 20.0)]


def test_a_tracker_that_fails_stops_no_training(
    data: Prepared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = run(data, "none")
    monkeypatch.setattr(loggers, "_opened", lambda *_: 1 / 0)
    assert_same(run(data, "mlflow"), plain)
    assert "runtime.logger=mlflow: division by zero; nothing is logged" in caplog.text

    class Failing:
        def write(self, row: object) -> None:
            raise OSError("connection lost")

    monkeypatch.setattr(loggers, "_opened", lambda *_: Failing())
    assert_same(run(data, "wandb"), plain)
    assert caplog.text.count("connection lost") == 1


def test_copies_of_the_project_log_into_the_project(tmp_path: Path) -> None:
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "abc"
    copy.mkdir(parents=True)
    os.chdir(copy)
    with open_log("tensorboard", "teacher@one 1234", []) as log:
        log.write({"epoch": 1, "loss": 1.0})
    assert list((tmp_path / ".logs" / "tensorboard" / "teacher@one-1234").iterdir())


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    assert parse(Runtime, {"logger": "none"}, source="x").logger == "none"
    for kind in ("tensorboard", "mlflow", "wandb"):
        said = f"logger='{kind}': not installed; run: pip install {kind}"
        with pytest.raises(UserError, match=said):
            parse(Runtime, {"logger": kind}, source="x")
