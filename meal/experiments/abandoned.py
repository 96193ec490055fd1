"""Experiments whose worker has been killed, as when the power fails.

DVC takes them for active until `dvc queue kill`, so a sweep would wait for them for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

import psutil
from dvc.exceptions import DvcException
from dvc.repo.experiments.queue.base import QueueEntry
from dvc.repo.experiments.queue.celery import LocalCeleryQueue


def abandoned(queue: LocalCeleryQueue, names: Set[str]) -> set[str]:
    """Those active experiments that no worker answers for and no process runs.

    This takes a second. A worker stores an experiment after its process has ended, and may answer
    late: look again before you `end` one.
    """
    entries = list(_active(queue, names))
    if not entries:
        return set()
    known = str(queue.worker_status()) + " ".join(_command_lines())
    return {str(entry.name) for entry in entries if entry.stash_rev not in known}


def end(queue: LocalCeleryQueue, names: Set[str]) -> None:
    """Have DVC list abandoned experiments as failed, if it agrees that no worker has them."""
    entries = list(_active(queue, names))
    if not entries:
        return
    for entry in entries:
        _declare_dead(queue, entry.stash_rev)
    try:
        queue.kill([str(entry.name) for entry in entries], force=True)
    except DvcException:  # one is being stored, or has just ended: the next look will tell
        return
    listed = ", ".join(sorted(str(entry.name) for entry in entries))
    print(f"ended without a result: {listed}", flush=True)


def forget_failed(queue: LocalCeleryQueue, names: Set[str]) -> None:
    """Remove failed experiments, which would stay listed beside those that replace them."""
    try:
        failed = [each.entry for each in queue.iter_failed() if each.entry.name in names]
        queue.remove([entry.stash_rev for entry in failed])
    except DvcException:  # another sweep has removed one
        return


def _active(queue: LocalCeleryQueue, names: Set[str]) -> Iterator[QueueEntry]:
    return (entry for entry in queue.iter_active() if entry.name in names)


def _command_lines() -> Iterator[str]:
    """Of all processes; that of an experiment names its revision."""
    for process in psutil.process_iter(["cmdline"]):
        yield " ".join(process.info["cmdline"] or [])


def _declare_dead(queue: LocalCeleryQueue, revision: str) -> None:
    """Note that the process has ended: by now, its number may be that of another one."""
    try:
        process = queue.proc[revision]
        process.returncode = -1
        queue.proc[revision] = process
    except KeyError:  # it never started
        return
    except ValueError:  # half-written
        del queue.proc[revision]
