"""Stages side by side: DVC runs one at a time, and several of its processes wait for each other.

Each lane is a `dvc repro --single-item` process with some stages in a row, under DVC's own locks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import FrameType

import networkx  # which DVC describes its graphs with
from dvc.exceptions import DvcException

from meal.core.errors import UserError
from meal.core.signals import SIGNALS
from meal.experiments.cores import share_cores
from meal.experiments.repository import open_repository

Graph = Mapping[str, Set[str]]  # by stage: those that it depends on


def stage_graph(targets: Sequence[str]) -> dict[str, set[str]]:
    """The stages of dvc.yaml that `targets` need, all if none is named, with their dependencies.

    Raises:
        UserError: if there is no such stage.
    """
    try:
        graph = open_repository().index.graph
    except DvcException as error:
        raise UserError(f"dvc.yaml cannot be read: {error}") from None
    whole = networkx.relabel_nodes(graph, {stage: stage.addressing for stage in graph})
    groups = {name.partition("@")[0] for name in whole}
    wanted: set[str] = set()
    for target in targets:
        named = {name for name in whole if target in (name, name.partition("@")[0])}
        if not named:
            raise UserError(f"{target}: no such stage; allowed: {', '.join(sorted(groups))}")
        wanted |= named
    needed = wanted.union(*(networkx.descendants(whole, stage) for stage in wanted))
    return {stage: {*whole.successors(stage)} for stage in whole if not wanted or stage in needed}


def next_lane(graph: Graph, done: Set[str], running: Set[str]) -> list[str]:
    """The next stages that one process can run in a row; empty if none is ready.

    A lane goes on as long as its stages make exactly one other ready, so that the process starts
    once for a teacher and its cache, or for the end of the pipeline.
    """
    open_ = [stage for stage in graph if stage not in done and stage not in running]
    ready = [stage for stage in open_ if graph[stage] <= done]
    if not ready:
        return []
    lane = [ready[0]]
    while True:
        known = {*done, *lane}
        others = [stage for stage in open_ if stage not in known and stage not in ready]
        following = [stage for stage in others if graph[stage] <= known]
        if len(following) != 1:
            return lane
        lane += following


class _Lanes:
    """The processes that are running, which end together."""

    def __init__(self, jobs: int) -> None:
        self._environment = {**os.environ}
        share_cores(self._environment, jobs)
        self._devices = _devices()
        self._free = list(range(jobs))
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, lane: Sequence[str]) -> str | None:
        """Run a lane to its end, with its output line by line; return the stage that failed."""
        with self._lock:
            if self._stopped:
                return lane[0]
            slot = self._free.pop(0)
            environment = dict(self._environment)
            if self._devices:
                environment["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
            process = subprocess.Popen(
                ["dvc", "--wait-for-lock", "repro", "--single-item", *lane],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # so that Ctrl-C reaches it through us, once
            )
            self._processes[slot] = process
        assert process.stdout is not None
        current = lane[0]
        for line in process.stdout:
            current = next((stage for stage in lane if f"'{stage}'" in line), current)
            if line.strip():
                print(f"[{current}] {line.rstrip()}", flush=True)
        status = process.wait()
        with self._lock:
            del self._processes[slot]
            self._free.append(slot)
        return current if status else None

    def stop(self) -> None:
        """Start no more, and ask all processes to end; training saves its state first."""
        with self._lock:
            self._stopped = True
            for process in self._processes.values():
                os.killpg(process.pid, signal.SIGINT)


def run_parallel(targets: Sequence[str], jobs: int) -> None:
    """Run what is out of date, independent stages side by side.

    Args:
        targets: the stages to bring up to date; all if none.
        jobs: the most processes at a time. Cores, and GPUs if there are any, are shared out.

    Raises:
        UserError: if a stage fails, or on Ctrl-C: the others are then stopped, and saved.
    """
    graph, lanes = stage_graph(targets), _Lanes(jobs)
    done: set[str] = set()
    failed: list[str] = []
    running: dict[Future[str | None], list[str]] = {}

    def interrupt(number: int, frame: FrameType | None) -> None:
        failed.append(signal.Signals(number).name)
        # In a thread of its own: the main thread may hold the lock.
        threading.Thread(target=lanes.stop).start()

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        with ThreadPoolExecutor(jobs) as pool:
            while True:
                while not failed and len(running) < jobs:
                    lane = next_lane(
                        graph, done, {each for own in running.values() for each in own}
                    )
                    if not lane:
                        break
                    running[pool.submit(lanes.run, lane)] = lane
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    lane, fault = running.pop(future), future.result()
                    if fault is None:
                        done |= {*lane}
                    else:
                        failed.append(fault)
                        lanes.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if failed:
        again = " ".join(["python -m meal run", f"-j {jobs}", *targets])
        raise UserError(f"stopped by {failed[0]}, see above; to resume: {again}")


def _devices() -> list[str]:
    """The GPUs of this machine, or those that are visible to this process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    found = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return sorted(found, key=int)
