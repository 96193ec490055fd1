"""Several machines that run one pipeline: on the first, DVC; the others join each of its stages.

They share the project's folder. The first machine holds a store, whose address its stages find in
`MEAL_CLUSTER`; there they announce themselves. The ranks of a stage meet at the next port.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from torch.distributed import DistError, DistNetworkError, DistStoreError, TCPStore

from meal.core.errors import UserError
from meal.core.launch import Meeting, launch, process_count
from meal.core.runtime import load_runtime
from meal.core.signals import SIGNALS

_ADDRESS = "MEAL_CLUSTER"
_PATIENCE = 15 * 60  # seconds to wait for another machine
_LOOK = timedelta(seconds=2)
_END = "end"


def run_first(address: str, command: Sequence[str]) -> int:
    """Run a command on the first machine while the others join its stages; return its status.

    Raises:
        UserError: if the port cannot be opened.
    """
    host, port = _parse(address)
    try:
        store = TCPStore(host, port, is_master=True, wait_for_workers=False)
    except DistError as error:
        raise UserError(f"{address}: cannot be opened: {str(error).splitlines()[0]}") from None
    environment = {**os.environ, _ADDRESS: address}
    # In a group of its own, which receives each signal once, through us.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    for number in SIGNALS:
        signal.signal(number, lambda number, _: os.killpg(process.pid, number))
    status = process.wait()
    store.set(_stage(int(store.add("stages", 0))), _END)
    with suppress(DistStoreError):  # one that is gone
        others = range(1, load_runtime().nodes)
        store.wait([f"left/{node}" for node in others], timedelta(seconds=10))
    return status


def join_stages(address: str, node: int) -> None:
    """Join every stage that the first machine starts, until its command has ended.

    Args:
        address: of the first machine.
        node: the number of this one.

    Raises:
        UserError: if the first machine is not there.
        Interrupted: if this process was asked to stop.
    """
    host, port = _parse(address)
    store, number = _connect(host, port), 0
    while (message := _read(store, _stage(number))) != _END:
        try:
            _launch(store, number, _meeting(node, host, port), _stage_command(message))
        except (UserError, RuntimeError) as error:  # the first machine ends, or goes on
            print(f"error: {error}", file=sys.stderr)
        number += 1
    with suppress(DistNetworkError):
        store.set(f"left/{node}", "")


def launch_on_all(command: Sequence[str]) -> None:
    """Run a stage's command as ranks on all machines; this is the first one.

    Raises:
        UserError: if `meal cluster` did not start this; and as `launch`.
    """
    address = os.environ.get(_ADDRESS)
    if address is None:
        raise UserError(
            f"runtime.nodes={load_runtime().nodes}: run `python -m meal cluster` on each machine"
        )
    host, port = _parse(address)
    store = _connect(host, port)
    number = int(store.add("stages", 1)) - 1
    store.set(_stage(number), json.dumps(command))
    _launch(store, number, _meeting(0, host, port), command)


def _stage_command(message: str) -> list[str]:
    """What the first machine asks for, if it is a stage: the store has no password."""
    found = json.loads(message)
    if found[:1] != ["-m"] or not re.fullmatch(r"stages\.\w+", "".join(found[1:2])):
        raise UserError(f"{message}: not a stage; it was not run")
    return list(found)


def _meeting(node: int, host: str, port: int) -> Meeting:
    """Where the ranks of a stage meet: at the port after that of the store."""
    return Meeting(load_runtime().nodes, node, host, port + 1)


def _launch(store: TCPStore, number: int, meeting: Meeting, command: Sequence[str]) -> None:
    """Run this machine's ranks of a stage; what ends it on one machine ends it on all."""
    failed = f"failed/{number}"
    over, elsewhere = threading.Event(), threading.Event()
    watched = store.clone()

    def watch() -> None:
        while not over.is_set():
            with suppress(DistStoreError):
                watched.wait([failed], _LOOK)
                if not over.wait(_LOOK.total_seconds()):  # unless it is about to fail itself
                    elsewhere.set()
                    os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        launch(command, process_count(load_runtime()), meeting)
    except BaseException:
        over.set()
        if elsewhere.is_set():
            raise UserError("another machine has stopped; see its output") from None
        with suppress(DistNetworkError):
            store.set(failed, "")
        raise
    finally:
        over.set()
        watcher.join()


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < (1 << 16) - 1:
        raise UserError(f"{address}: expected HOST:PORT of the first machine, like node1:29400")
    try:
        socket.getaddrinfo(host, int(port))
    except OSError as error:
        raise UserError(f"{address}: {error.strerror or error}") from None
    return host, int(port)


def _connect(host: str, port: int) -> TCPStore:
    """The store of the first machine, once it is there."""
    end, told = time.monotonic() + _PATIENCE, False
    while True:
        with suppress(OSError), socket.create_connection((host, port), _LOOK.total_seconds()):
            return TCPStore(host, port, is_master=False, wait_for_workers=False)
        if time.monotonic() > end:
            raise UserError(f"{host}:{port}: the first machine is not there")
        if not told:
            print(f"waiting for {host}:{port}", flush=True)
            told = True
        time.sleep(1)


def _stage(number: int) -> str:
    return f"stage/{number}"


def _read(store: TCPStore, key: str) -> str:
    """The value of a key, once it is there; the end if the first machine is gone."""
    while True:
        try:
            store.wait([key], _LOOK)
            return str(store.get(key).decode())
        except DistStoreError:  # not there yet
            continue
        except DistNetworkError:
            return _END
