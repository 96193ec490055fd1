"""Training curves in an experiment tracker, besides the files in `reports/training`.

Each tracker is an optional library, imported when it is chosen. Local records lie in `.logs`; the
trackers' own environment variables (`MLFLOW_TRACKING_URI`, `WANDB_MODE`) are respected. None of
this changes a result.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from meal.core import ranks
from meal.core.paths import project_root
from meal.core.runtime import Logger

LOGGER = logging.getLogger(__name__)
LOGS = Path(".logs")
_PROJECT = "meal"

Row = Mapping[str, float]


class Log(Protocol):
    """Where the rows of a training curve go."""

    def write(self, row: Row) -> None:
        """Record one epoch."""


@contextmanager
def open_log(kind: Logger, name: str, history: Sequence[Row]) -> Iterator[Log]:
    """A log of one training run, closed at the end of the block; that of the first rank.

    Args:
        kind: `runtime.logger`.
        name: of the run, the same when it is resumed.
        history: the epochs that an interrupted run has already done.
    """
    with ExitStack() as stack:
        try:
            log = _opened(kind if ranks.is_first() else "none", name, history, stack)
        except Exception as error:  # a tracker may fail in any way, but not the training
            LOGGER.warning("runtime.logger=%s: %s; nothing is logged", kind, _said(error))
            log = _Nothing()
        yield _Patient(log)


def _opened(kind: Logger, name: str, history: Sequence[Row], stack: ExitStack) -> Log:
    # Copies of the project, in which DVC runs experiments, are removed with all that they hold.
    folder = project_root() / LOGS
    if kind == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        path, first = folder / "tensorboard" / name.replace(" ", "-"), len(history) + 1
        return _TensorBoard(stack.enter_context(SummaryWriter(str(path), purge_step=first)))
    if kind == "mlflow":
        if "MLFLOW_TRACKING_URI" not in os.environ:
            os.environ["MLFLOW_TRACKING_URI"] = (folder / "mlflow").as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        import mlflow

        mlflow.set_experiment(_PROJECT)
        stack.enter_context(mlflow.start_run(run_name=name))
        return _replayed(_MLflow(mlflow), history)
    if kind == "wandb":
        import wandb

        folder.mkdir(exist_ok=True)
        run = wandb.init(project=_PROJECT, name=name, dir=str(folder))
        return _replayed(_Wandb(stack.enter_context(run)), history)
    return _Nothing()


def _replayed(log: Log, history: Sequence[Row]) -> Log:
    """A log with the epochs before an interruption: a resumed run is a new one for its tracker."""
    for row in history:
        log.write(row)
    return log


class _Patient:
    """Warns once if the tracker fails, and then no longer asks it."""

    def __init__(self, log: Log) -> None:
        self._log: Log = log

    def write(self, row: Row) -> None:
        try:
            self._log.write(row)
        except Exception as error:
            LOGGER.warning("the tracker failed: %s; nothing more is logged", _said(error))
            self._log = _Nothing()


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


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
