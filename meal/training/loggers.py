"""Training curves in an experiment tracker, besides the files in `reports/training`.

Each tracker is an optional library, imported when it is chosen. Local records lie in `.logs`; the
trackers' own environment variables (`MLFLOW_TRACKING_URI`, `WANDB_MODE`) are respected. None of
this changes a result.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from meal.core.errors import UserError
from meal.core.runtime import Logger

LOGS = Path(".logs")
PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
_PROJECT = "meal"

Row = Mapping[str, float]


class Log(Protocol):
    """Where the rows of a training curve go."""

    def write(self, row: Row) -> None:
        """Record one epoch."""


@contextmanager
def open_log(kind: Logger, title: str, history: Sequence[Row]) -> Iterator[Log]:
    """A log of one training run, closed at the end of the block.

    Args:
        kind: `runtime.logger`.
        title: of the run.
        history: the epochs that an interrupted run has already done.

    Raises:
        UserError: if the library is not installed.
    """
    if kind != "none" and find_spec(PACKAGES[kind]) is None:
        raise UserError(f"runtime.logger={kind!r}: not installed; run: pip install {kind}")
    if kind == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        folder, first = LOGS / "tensorboard" / title.replace(" ", "-"), len(history) + 1
        with SummaryWriter(str(folder), purge_step=first) as writer:
            yield _TensorBoard(writer)
    elif kind == "mlflow":
        if "MLFLOW_TRACKING_URI" not in os.environ:
            os.environ["MLFLOW_TRACKING_URI"] = (Path.cwd() / LOGS / "mlflow").as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        import mlflow

        mlflow.set_experiment(_PROJECT)
        with mlflow.start_run(run_name=title):
            yield _replayed(_MLflow(mlflow), history)
    elif kind == "wandb":
        import wandb

        LOGS.mkdir(exist_ok=True)
        with wandb.init(project=_PROJECT, name=title, dir=str(LOGS)) as run:
            yield _replayed(_Wandb(run), history)
    else:
        yield _Nothing()


def _replayed(log: Log, history: Sequence[Row]) -> Log:
    """A log with the epochs before an interruption: a resumed run is a new one for its tracker."""
    for row in history:
        log.write(row)
    return log


def _values(row: Row) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "epoch"}


class _Nothing:
    def write(self, row: Row) -> None:
        pass


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, row: Row) -> None:
        for name, value in _values(row).items():
            self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()


class _MLflow:
    def __init__(self, mlflow: Any) -> None:
        self._mlflow = mlflow

    def write(self, row: Row) -> None:
        self._mlflow.log_metrics(_values(row), step=int(row["epoch"]))


class _Wandb:
    def __init__(self, run: Any) -> None:
        self._run = run

    def write(self, row: Row) -> None:
        self._run.log(_values(row), step=int(row["epoch"]))
