"""Checkpoints: written atomically, verified when read, the last two kept."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import torch

from meal.core import ranks
from meal.core.collectives import broadcast
from meal.core.digests import sha256
from meal.core.files import atomic_path, write_errors
from meal.core.work import WorkFolder

LOGGER = logging.getLogger(__name__)

KEPT = 2  # if the newest is damaged, the previous one is used


class Checkpoints:
    """The checkpoints of one training run."""

    def __init__(self, work: WorkFolder, minutes: float = math.inf) -> None:
        """Keep checkpoints in `work`; a new one is due `minutes` after the last."""
        self._folder = work.path
        self._seconds = 60 * minutes
        self._saved_at = time.monotonic()

    @property
    def name(self) -> str:
        """A few digits that stand for the run's parameters, inputs and code."""
        return self._folder.name[:8]

    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return ranks.is_first() and time.monotonic() - self._saved_at >= self._seconds

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` steps, in the first rank; delete all but the last two."""
        if not ranks.is_first():
            return
        path = self._folder / f"{step:09d}.pt"
        with atomic_path(path) as temporary:
            with write_errors(path, RuntimeError):
                torch.save(state, temporary)
            digest = sha256(temporary)
        with atomic_path(path.with_suffix(".sha256")) as temporary:
            temporary.write_text(digest + "\n", encoding="ascii")
        for old in self._saved()[:-KEPT]:
            old.unlink(missing_ok=True)
            old.with_suffix(".sha256").unlink(missing_ok=True)
        self._saved_at = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The newest intact state, or None; damaged ones are renamed, with a warning."""
        path = broadcast(self._newest() if ranks.is_first() else None)
        if path is None:
            return None
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state

    def _newest(self) -> Path | None:
        for path in reversed(self._saved()):
            digest = path.with_suffix(".sha256")
            if digest.is_file() and sha256(path) == digest.read_text(encoding="ascii").strip():
                return path
            LOGGER.warning("%s is damaged; using the previous one", path)
            path.replace(path.with_suffix(".damaged"))
        return None

    def _saved(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.pt"))
