"""Signals that ask a process to stop: recorded, so that it can save its work and then exit."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from meal.core import ranks
from meal.core.work import say_leaving

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PATIENCE = 10.0  # seconds after which a second SIGTERM ends the process


class Interrupted(Exception):  # noqa: N818 - not an error: it was requested
    """The process was asked to stop and has saved its work."""

    def __init__(self, number: int, saved: str) -> None:
        super().__init__(f"{signal.Signals(number).name} received; {saved}")
        self.number, self.saved, self.status = number, saved, 128 + number


@dataclass
class Interruption:
    """The signal that was received; None if there was none."""

    requested: int | None = None


@contextmanager
def recorded_signals() -> Iterator[Interruption]:
    """Record SIGTERM and Ctrl-C instead of ending the process; a second Ctrl-C ends it at once.

    So does a second SIGTERM after a while: the process may wait for something that never comes.
    Of several ranks, only the first records them: the others go on until it has saved the work.
    """
    interruption, since = Interruption(), 0.0

    def record(number: int, frame: FrameType | None) -> None:
        nonlocal since
        if not ranks.is_first():
            return
        if interruption.requested is None:
            interruption.requested, since = number, time.monotonic()
            say_leaving()
        # SIGTERM may come from several sides at once.
        elif number == signal.SIGINT or time.monotonic() - since > _PATIENCE:
            raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()  # others cannot set handlers
    before = {number: signal.signal(number, record) for number in SIGNALS} if main else {}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
