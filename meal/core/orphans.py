"""A stage whose `dvc repro` was killed must not run on: the next one would wait for its lock."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from meal.core import ranks
from meal.core.work import say_leaving

_SECONDS = 0.5  # between two looks
_SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish", "busybox")


def leave_with_parent() -> None:
    """Send this process SIGTERM, on which it saves its work, once DVC is gone."""
    threading.Thread(target=_watch, args=(_started_by(),), daemon=True).start()


_leaves = threading.Event()


def leave_with_first(process: int) -> None:
    """End this rank once the first rank is gone: it may wait for it in a collective forever.

    Args:
        process: the first rank's id, if it is on this machine.
    """
    if not ranks.is_first() and ranks.on_first_machine():
        threading.Thread(target=_watch_first, args=(process,), daemon=True).start()


def stay_without_first() -> None:
    """The ranks leave: the first may be gone before this one."""
    _leaves.set()


def _watch_first(process: int) -> None:
    while _process(process)[0] and not _leaves.is_set():
        time.sleep(_SECONDS)
    time.sleep(2 * _SECONDS)  # in which it says itself what went wrong
    if not _leaves.is_set():
        os._exit(1)


def _watch(started_by: tuple[int, str]) -> None:
    process, name = started_by
    adopted = process == 1 and not name.startswith(("dvc", "python"))  # DVC is gone already
    while not adopted and _started_by() == started_by:
        time.sleep(_SECONDS)
    say_leaving()
    os.kill(os.getpid(), signal.SIGTERM)


def _started_by() -> tuple[int, str]:
    """DVC's process id and name: of the parent, or of its parent if a shell stays between."""
    parent = os.getppid()
    name, above = _process(parent)
    if name in _SHELLS and above is not None:
        return above, _process(above)[0]
    return parent, name


def _process(number: int) -> tuple[str, int | None]:
    """The name of a process and the id of its parent; unknown without /proc, or if it ended."""
    try:
        text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", None
    name, rest = text.partition("(")[2].rpartition(")")[::2]
    return name, int(rest.split()[1])
