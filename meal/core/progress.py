"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """The units of work done, with speed, time left and a few values."""

    def __init__(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=title,
            unit=unit,
            disable=None,  # no bar unless standard error is a terminal
            dynamic_ncols=True,
            mininterval=0.5,
        )
        self._title, self._total, self._unit = title, total, unit
        self._started, self._first = time.monotonic(), done
        self._done, self._shown = done, self._started

    def __enter__(self) -> Progress:
        """Return this progress."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the bar."""
        self._bar.close()

    def due(self) -> bool:
        """Whether to show new values now; reading them may synchronise the device."""
        if self._bar.disable:
            return time.monotonic() - self._shown >= _SECONDS_BETWEEN_LINES
        return time.monotonic() - self._bar.last_print_t >= self._bar.mininterval

    def advance(self, amount: int) -> None:
        """Count `amount` more units."""
        self._done += amount
        self._bar.update(amount)

    def show(self, values: Mapping[str, float]) -> None:
        """Show values beside the bar, or print a line."""
        if not self._bar.disable:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()})
            return
        self._shown = time.monotonic()
        speed = (self._done - self._first) / max(1e-9, self._shown - self._started)
        left = (self._total - self._done) / max(1e-9, speed)
        shown = " ".join(f"{name}={value:.4g}" for name, value in values.items())
        print(
            f"{self._title}: {self._done}/{self._total} {self._unit} "
            f"{speed:.0f} {self._unit}/s {left:.0f} s left {shown}".rstrip(),
            flush=True,
        )
