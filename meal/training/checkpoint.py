"""Checkpoints: written whole, checked when read, the last two kept."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch

from meal.files import atomic_path, disk_errors, sha256
from meal.work import WorkFolder

KEPT = 2  # should the newest be damaged, the one before is used


class Checkpoints:
    """The checkpoints of one training run."""

    def __init__(self, work: WorkFolder, minutes: float = math.inf) -> None:
        """Keep checkpoints in `work`; `minutes` after the last one, another is due."""
        self._folder = work.path
        self._seconds = 60 * minutes
        self._saved_at = time.monotonic()

    def due(self) -> bool:
        """Whether so much time has passed that losing it would hurt."""
        return time.monotonic() - self._saved_at >= self._seconds

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` steps; older ones than the last two go."""
        path = self._folder / f"{step:09d}.pt"
        with atomic_path(path) as temporary:
            with disk_errors(path, RuntimeError):
                torch.save(state, temporary)
            digest = sha256(temporary)
        with atomic_path(path.with_suffix(".sha256")) as temporary:
            temporary.write_text(digest + "\n", encoding="ascii")
        for old in self._saved()[:-KEPT]:
            old.unlink(missing_ok=True)
            old.with_suffix(".sha256").unlink(missing_ok=True)
        self._saved_at = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The newest whole state, or None. A damaged one is set aside with a warning."""
        for path in reversed(self._saved()):
            digest = path.with_suffix(".sha256")
            if digest.is_file() and sha256(path) == digest.read_text(encoding="ascii").strip():
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                return state
            print(f"warning: {path} is damaged, set aside; the one before is used", flush=True)
            path.replace(path.with_suffix(".damaged"))
        return None

    def _saved(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.pt"))
