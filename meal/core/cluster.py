"""Several machines that run one pipeline: on the first, DVC; the others join each of its stages.

They share the project's folder, and meet at a store on the first machine, whose address the stages
find in `MEAL_CLUSTER`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from torch.distributed import DistNetworkError, DistStoreError, TCPStore

from meal.core.errors import UserError
from meal.core.launch import Meeting, launch, process_count
from meal.core.runtime import load_runtime

_ADDRESS = "MEAL_CLUSTER"
_PATIENCE = timedelta(minutes=15)  # for another machine to come
_SECONDS = timedelta(seconds=2)  # between two looks
_END = "end"


def run_first(address: str, command: Sequence[str]) -> int:
    """Run a command on the first machine while the others join its stages; return its status.

    Raises:
        UserError: if the port cannot be opened.
    """
    store = _open_store(address, first=True)
    process = subprocess.Popen(command, env={**os.environ, _ADDRESS: address})
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: process.send_signal(number))
    status = process.wait()
    store.set(_stage(_count(store)), _END)
    with suppress(DistStoreError):  # one that is gone
        store.wait([f"left/{other}" for other in range(1, load_runtime().nodes)], 5 * _SECONDS)
    return status


def join_stages(address: str) -> None:
    """Join every stage that the first machine starts, until its command has ended.

    Raises:
        UserError: if the first machine is not there.
    """
    store, number = _open_store(address), 0
    while (message := _read(store, _stage(number))) != _END:
        try:
            _launch(store, address, number, json.loads(message))
        except UserError as error:  # the first machine ends, or goes on
            print(f"error: {error}", file=sys.stderr)
        number += 1
    store.set(f"left/{store.add('left', 1)}", "")


def launch_on_all(command: Sequence[str]) -> None:
    """Run a stage's command as ranks on all machines.

    Raises:
        UserError: if `meal cluster` did not start this; and as `launch`.
    """
    address = os.environ.get(_ADDRESS)
    if address is None:
        raise UserError(
            f"runtime.nodes={load_runtime().nodes}: run `python -m meal cluster` on each machine"
        )
    store = _open_store(address)
    number = int(store.add("stages", 1)) - 1
    store.set(_stage(number), json.dumps(command))
    _launch(store, address, number, command)


def _launch(store: TCPStore, address: str, number: int, command: Sequence[str]) -> None:
    """Run this machine's ranks of a stage; a failure on one machine ends the stage on all."""
    runtime, failed = load_runtime(), f"failed/{number}"
    over, elsewhere = threading.Event(), threading.Event()
    watched = store.clone()

    def watch() -> None:
        while not over.is_set():
            with suppress(DistStoreError):
                watched.wait([failed], _SECONDS)
                if not over.is_set():
                    elsewhere.set()
                    os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        launch(command, process_count(runtime), Meeting(runtime.nodes, address, f"stage-{number}"))
    except BaseException:
        over.set()
        if elsewhere.is_set():
            raise UserError("another machine failed; see its output") from None
        with suppress(DistNetworkError):
            store.set(failed, "")
        raise
    finally:
        over.set()
        watcher.join()


def _open_store(address: str, *, first: bool = False) -> TCPStore:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise UserError(f"{address}: expected HOST:PORT of the first machine, like node1:29400")
    try:
        return TCPStore(host, int(port), is_master=first, wait_for_workers=False, timeout=_PATIENCE)
    except DistNetworkError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{address}: cannot be {'opened' if first else 'reached'}: {reason}"
        ) from None


def _count(store: TCPStore) -> int:
    """The number of stages that were started."""
    return int(store.add("stages", 0))


def _stage(number: int) -> str:
    return f"stage/{number}"


def _read(store: TCPStore, key: str) -> str:
    """The value of a key, once it is there; the end if the first machine is gone."""
    while True:
        try:
            store.wait([key], _SECONDS)
            return str(store.get(key).decode())
        except DistStoreError:  # not there yet
            continue
        except DistNetworkError:
            return _END
