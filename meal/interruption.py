"""Signals that ask a process to end: noted, so that it can save before it leaves."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):  # noqa: N818 - not an error: it was asked for
    """The process was asked to end, and has saved."""

    def __init__(self, number: int, saved: str) -> None:
        super().__init__(f"{signal.Signals(number).name} received; {saved}")
        self.status = 128 + number


class Interruption:
    """While entered, SIGTERM and Ctrl-C are noted in `requested`; a second one ends at once."""

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        """Begin to note."""
        if threading.current_thread() is threading.main_thread():  # elsewhere they cannot be caught
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the handlers from before back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = number
