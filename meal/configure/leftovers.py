"""Unfinished work in `.checkpoints` that no run with the current parameters would resume."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meal.configure.slices import Slices
from meal.core.errors import UserError
from meal.core.files import read_json
from meal.core.work import IDENTITY, is_running

_SLICES = {"teacher@": "teachers/", "cache@": "caches/"}  # where the slices of stages lie


@dataclass(frozen=True)
class Leftover:
    """A folder of unfinished work, its size in bytes, and why nothing will resume it."""

    path: Path
    size: int
    reason: str

    def remove(self) -> None:
        """Remove the folder and the file beside it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.with_suffix(IDENTITY).unlink(missing_ok=True)


def find_leftovers(root: Path, slices: Slices) -> list[Leftover]:
    """The leftovers of all stages, without those of a stage that is running.

    Args:
        root: the folder of all unfinished work.
        slices: what the current parameters give each stage, by path.
    """
    found: list[Leftover] = []
    for stage in sorted(root.iterdir()) if root.is_dir() else []:
        if not stage.is_dir() or is_running(stage):
            continue
        folders = [folder for folder in stage.iterdir() if folder.is_dir()]
        current = slices.get(_slice_name(stage.name))
        resumed = False
        for folder in sorted(folders, key=_newest, reverse=True):
            if current is None:
                reason = f"{stage.name} is not part of the current parameters"
            elif _parameters(folder) != current:
                reason = "for other parameters"
            elif resumed:
                reason = "for other inputs or code"
            else:
                resumed = True
                continue
            found.append(Leftover(folder, _size(folder), reason))
    return found


def _slice_name(stage: str) -> str:
    for start, folder in _SLICES.items():
        if stage.startswith(start):
            return folder + stage.removeprefix(start)
    return stage


def _parameters(folder: Path) -> Mapping[str, Any] | None:
    """The parameters that a folder is for; None if unknown."""
    try:
        return read_json(folder.with_suffix(IDENTITY), "python -m meal clean").get("config")
    except UserError:
        return None


def _newest(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


def _size(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))
