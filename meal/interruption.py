"""Signals that ask a process to end: noted, so that it can save before it leaves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):  # noqa: N818 - not an error: it was asked for
    """The process was asked to end, and has saved."""

    def __init__(self, number: int, saved: str) -> None:
        super().__init__(f"{signal.Signals(number).name} received; {saved}")
        self.status = 128 + number


@dataclass
class Interruption:
    """The signal that was noted, if one was."""

    requested: int | None = None


@contextmanager
def noted_signals() -> Iterator[Interruption]:
    """While entered, SIGTERM and Ctrl-C are noted; a second one ends at once."""
    interruption = Interruption()

    def note(number: int, frame: FrameType | None) -> None:
        if interruption.requested is not None:
            raise KeyboardInterrupt
        interruption.requested = number

    main = threading.current_thread() is threading.main_thread()  # elsewhere none can be caught
    before = {number: signal.signal(number, note) for number in SIGNALS} if main else {}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
