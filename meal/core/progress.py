"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from types import TracebackType

from tqdm import tqdm

from meal.core import ranks

_SECONDS_BETWEEN_LINES = 60.0  # without a terminal, in epochs that take longer
_NARROW = 80  # columns of a terminal that has no room for a bar
_TITLE = {False: 18, True: 12}  # characters of the title on a wide and a narrow terminal
_FIXED = {False: 42, True: 31}  # characters of percentage, speed and time left
_LINE = "{desc} {percentage:3.0f}%%%s {rate_fmt} {remaining} left{postfix}"
# What fits best beside the bar, with short names, in the order of importance.
_SHORT = {
    "validation_top1_error": "val err",
    "loss": "loss",
    "validation_nll": "val nll",
    "discriminator_accuracy": "D acc",
    "similarity": "sim",
    "discriminator": "D",
    "label": "label",
}


class Progress:
    """The units of work done, with speed, time left and a few values."""

    def __init__(
        self, title: str, total: int, unit: str, done: int = 0, epochs: int | None = None
    ) -> None:
        """Start counting.

        Args:
            title: what is being done.
            total: the units of work.
            unit: their name.
            done: units that an earlier run has done.
            epochs: the number of epochs that the work is divided into; None for none.
        """
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=unit.removesuffix("s"),
            # No bar unless standard error is a terminal.
            disable=None if ranks.is_first() else True,
            dynamic_ncols=True,
            mininterval=0.5,
        )
        self._title, self._total, self._unit = title, total, unit
        self._epochs, self._epoch = epochs, 0 if epochs is None else done * epochs // total
        self._started, self._first = time.monotonic(), done
        self._done, self._shown = done, self._started
        self._known: dict[str, float] = {}  # the newest values
        self._describe()

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

    def end_epoch(self, values: Mapping[str, float]) -> None:
        """Count an epoch, and show its values."""
        self._epoch += 1
        self.show(values)

    def show(self, values: Mapping[str, float]) -> None:
        """Show values beside the bar, or print a line."""
        self._known |= values
        if not self._bar.disable:
            self._describe()
            return
        self._shown = time.monotonic()
        per_second = (self._done - self._first) / max(1e-9, self._shown - self._started)
        left = (self._total - self._done) / max(1e-9, per_second)
        speed = f"{per_second:.1f} {self._unit}/s"
        if per_second < 1:
            speed = f"{1 / max(1e-9, per_second):.1f} s/{self._unit.removesuffix('s')}"
        epoch = "" if self._epochs is None else f" epoch {self._epoch}/{self._epochs}"
        shown = " ".join(f"{name}={value:.4g}" for name, value in values.items())
        print(
            f"{self._title}:{epoch} {self._done}/{self._total} {self._unit} "
            f"{speed} {left:.0f} s left {shown}".rstrip(),
            flush=True,
        )

    def _describe(self) -> None:
        """Put title, epoch and as many values as fit beside the bar."""
        if self._bar.disable:
            return
        columns = shutil.get_terminal_size().columns
        narrow = columns < _NARROW
        self._bar.bar_format = _LINE % ("" if narrow else "|{bar:8}|")
        title = shortened(self._title, _TITLE[narrow])
        if self._epochs is not None:
            title += f" {min(self._epoch + 1, self._epochs)}/{self._epochs}"
        self._bar.set_description_str(title, refresh=False)
        room = columns - len(title) - _FIXED[narrow]
        self._bar.set_postfix_str(fitting(self._known, room), refresh=False)


def shortened(text: str, length: int) -> str:
    """A text of at most `length` characters, its middle left out."""
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[: length - 1 - half]}…{text[len(text) - half :]}"


def fitting(values: Mapping[str, float], room: int) -> str:
    """As many values as fit in `room` characters, the most important first."""
    words: list[str] = []
    for name, short in _SHORT.items():
        if name in values:
            word = f"{short} {values[name]:.3g}"
            if sum(map(len, words)) + 2 * len(words) + len(word) > room:
                break
            words.append(word)
    return ", ".join(words)
