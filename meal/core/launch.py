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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from meal.core.errors import UserError, user_message
from meal.core.runtime import Runtime
from meal.core.signals import SIGNALS, Interrupted

_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # where the launcher looks for a rank's error
_RESUME = "resume with: dvc repro"
_SECONDS_TO_SAVE = 600  # what a rank that was asked to stop may take
# What a rank says whose partner has gone, and which is not the cause.
_FOLLOWS = ("gloo", "NCCL", "TCPStore")


@dataclass(frozen=True)
class Meeting:
    """Where the ranks of several machines meet.

    Attributes:
        nodes: the number of machines.
        node: the number of this one, from 0.
        host, port: of the first one.
    """

    nodes: int
    node: int
    host: str
    port: int


def process_count(runtime: Runtime) -> int:
    """`runtime.processes` on this machine: `auto` is one per GPU, otherwise one."""
    if runtime.processes != "auto":
        return runtime.processes
    if runtime.device not in ("auto", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def this_command() -> list[str]:
    """What Python was asked to run: a module with its arguments."""
    spec = sys.modules["__main__"].__spec__
    assert spec is not None  # stages are run with `python -m`
    return ["-m", spec.name, *sys.argv[1:]]


def launch(command: Sequence[str], processes: int, meeting: Meeting | None = None) -> None:
    """Run a Python command as several ranks, and wait for them; one that fails ends the others.

    Args:
        command: the arguments of Python.
        processes: the ranks on this machine, which share its threads.
        meeting: with other machines; None if there are none.

    Raises:
        UserError: if a rank fails in a way that the user can fix, or is killed.
        RuntimeError: with its traceback, if a rank fails in any other way.
        Interrupted: if this process was asked to stop; the first rank has saved its work.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher import LaunchConfig, elastic_launch

    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    threads = int(given) if given.isdigit() else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as logs, _quiet_signals() as received:
        common: dict[str, Any] = {
            "nproc_per_node": processes,
            "run_id": "meal",
            "max_restarts": 0,
            "logs_specs": DefaultLogsSpecs(log_dir=logs),
            "signals_to_handle": "SIGTERM",
        }
        if meeting is None:
            config = LaunchConfig(
                1,
                1,
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                local_addr="localhost",
                **common,
            )
        else:
            config = LaunchConfig(
                meeting.nodes,
                meeting.nodes,
                rdzv_backend="static",
                rdzv_endpoint=f"{meeting.host}:{meeting.port}",
                rdzv_configs={"rank": meeting.node},
                **common,
            )
        try:
            with _environment(
                OMP_NUM_THREADS=str(max(1, threads // processes)),
                TORCH_ELASTIC_SHUTDOWN_TIMEOUT=str(_SECONDS_TO_SAVE),
                # DDP would warn of steps in which every parameter has a gradient.
                TORCH_CPP_LOG_LEVEL="ERROR",
            ):
                elastic_launch(config, sys.executable)(*command)
        except SignalException as error:
            number = received[0] if received else error.sigval
            said = [each for each in _messages(Path(logs)) if each["saved"]]
            saved = said[0]["saved"] if said else _RESUME
            raise Interrupted(number, saved) from None
        except ChildFailedError as error:
            _raise_cause(error.failures)
        except (DistError, RendezvousError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"the processes cannot meet: {reason}; {_RESUME}") from None


@contextmanager
def _quiet_signals() -> Iterator[list[int]]:
    """Stop the ranks with SIGTERM whatever signal was received, without a word of torch's.

    Yields the signals that were received.
    """
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        os.kill(os.getpid(), signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in SIGNALS}

    def stop(number: int, frame: FrameType | None) -> None:  # until torch's handler is there
        raise Interrupted(received[0] if received else number, _RESUME)

    signal.signal(signal.SIGINT, forward)
    signal.signal(signal.SIGTERM, stop)
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield received
    finally:
        logging.disable(disabled)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set variables for the processes that are started."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _messages(logs: Path) -> list[dict[str, Any]]:
    """What ranks have left for the launcher."""
    return [
        json.loads(path.read_text(encoding="utf-8"))["message"]["extraInfo"]
        for path in logs.rglob("error.json")
    ]


def _raise_cause(failures: Mapping[int, Any]) -> None:
    """Raise the error of the rank that failed first; others fail because it has."""

    def order(rank: int) -> tuple[int, int]:
        failure = failures[rank]
        if isinstance(failure.message, dict):
            found = failure.message["extraInfo"]
            return (2 if found["follows"] else 0), found["nanoseconds"]
        return (3 if -failure.exitcode == signal.SIGTERM else 1), 0  # SIGTERM: the launcher's

    rank = min(failures, key=order)
    failure = failures[rank]
    if not isinstance(failure.message, dict):
        if failure.exitcode > 0:  # it has said why
            sys.exit(failure.exitcode)
        name = signal.Signals(-failure.exitcode).name
        raise UserError(f"process {rank} was ended by {name}; {_RESUME}")
    found = failure.message["extraInfo"]
    if found["follows"]:
        reason = failure.message["message"].splitlines()[0]
        raise UserError(
            f"process {rank} has lost another: {reason}; see the other machines' output"
        )
    if found["py_callstack"]:
        raise RuntimeError(f"process {rank} failed:\n{found['py_callstack']}")
    if found["saved"]:
        raise Interrupted(found["signal"], found["saved"])
    raise UserError(failure.message["message"])


def leave_message(error: Exception) -> None:
    """Leave an error of this rank for the launcher, which prints one for all ranks."""
    stopped = error if isinstance(error, Interrupted) else None
    message = str(error) if stopped else user_message(error)
    found = {
        "message": message or str(error),
        "extraInfo": {
            "py_callstack": "" if message else traceback.format_exc(),
            "timestamp": int(time.time()),  # for torch; too coarse to tell which was the first
            "nanoseconds": time.time_ns(),
            "follows": isinstance(error, RuntimeError) and any(w in str(error) for w in _FOLLOWS),
            "saved": stopped.saved if stopped else "",
            "signal": stopped.number if stopped else 0,
        },
    }
    with suppress(OSError):  # the launcher is gone
        Path(os.environ[_ERROR_FILE]).write_text(json.dumps({"message": found}), encoding="utf-8")
