"""Starting the ranks of a stage with torchrun's launcher (torch.distributed.elastic)."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meal.core.cores import share_cores
from meal.core.errors import UserError, user_message
from meal.core.runtime import Runtime
from meal.core.signals import Interrupted

_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # where the launcher looks for a rank's error


def process_count(runtime: Runtime) -> int:
    """`runtime.processes` on this machine: `auto` is one per GPU, otherwise one."""
    if runtime.processes != "auto":
        return runtime.processes
    if runtime.device not in ("auto", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())


@dataclass(frozen=True)
class Meeting:
    """Where the ranks of several machines meet.

    Attributes:
        nodes: the number of machines.
        address: HOST:PORT of a store that is there already.
        name: of this meeting.
    """

    nodes: int
    address: str
    name: str


def this_command() -> list[str]:
    """What Python was asked to run: a module with its arguments."""
    spec = sys.modules["__main__"].__spec__
    assert spec is not None  # stages are run with `python -m`
    return ["-m", spec.name, *sys.argv[1:]]


def launch(command: Sequence[str], processes: int, meeting: Meeting | None = None) -> None:
    """Run a Python command as several ranks, and wait for them; one that fails ends the others.

    Args:
        command: the arguments of Python.
        processes: the ranks on this machine.
        meeting: with other machines; None if there are none.

    Raises:
        UserError: if a rank fails in a way that the user can fix, or is killed.
        RuntimeError: with its traceback, if a rank fails in any other way.
        Interrupted: if this process was asked to stop; the first rank has saved its work.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    share_cores(os.environ, processes)
    # DDP would warn of steps in which every parameter has a gradient: those of some teachers do.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    local = meeting is None or meeting.address.startswith("localhost:")
    with tempfile.TemporaryDirectory() as logs:
        config = LaunchConfig(
            min_nodes=meeting.nodes if meeting else 1,
            max_nodes=meeting.nodes if meeting else 1,
            nproc_per_node=processes,
            run_id=meeting.name if meeting else f"meal-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint=meeting.address if meeting else "localhost:0",
            rdzv_configs={"is_host": meeting is None},
            local_addr="localhost" if local else None,
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            signals_to_handle="SIGTERM,SIGINT",
        )
        try:
            elastic_launch(config, sys.executable)(*command)
        except SignalException as error:
            raise Interrupted(error.sigval, "resume with: dvc repro") from None
        except ChildFailedError as error:
            _raise_first(error.failures)


def _raise_first(failures: Mapping[int, Any]) -> None:
    """Raise the error of the rank that failed first: one that was killed, or the earliest."""

    def when(rank: int) -> int:
        message = failures[rank].message
        return int(message["extraInfo"]["nanoseconds"]) if isinstance(message, dict) else 0

    rank = min(failures, key=when)
    failure = failures[rank]
    if not isinstance(failure.message, dict):
        if failure.exitcode > 0:  # it has said why
            sys.exit(failure.exitcode)
        name = signal.Signals(-failure.exitcode).name
        raise UserError(f"process {rank} was ended by {name}; resume with: dvc repro")
    trace = failure.message["extraInfo"]["py_callstack"]
    if trace:
        raise RuntimeError(f"process {rank} failed:\n{trace}")
    raise UserError(failure.message["message"])


def record_failure(error: Exception) -> None:
    """Leave an error of this rank for the launcher, which prints the first one."""
    message = user_message(error)
    trace = traceback.format_exc() if message is None else ""
    found = {
        "message": message or str(error),
        # The launcher's seconds do not tell the cause from what follows in other ranks.
        "extraInfo": {
            "py_callstack": trace,
            "timestamp": int(time.time()),
            "nanoseconds": time.time_ns(),
        },
    }
    Path(os.environ[_ERROR_FILE]).write_text(json.dumps({"message": found}), encoding="utf-8")
