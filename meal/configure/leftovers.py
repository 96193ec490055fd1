"""Unfinished work in `.checkpoints` that no run with the current parameters would resume."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meal.configure.slices import Slices
from meal.core.errors import UserError
from meal.core.files import read_json, read_sealed
from meal.core.paths import CONFIG, DATA
from meal.core.work import IDENTITY, is_running
from meal.prepare.settings import reading

_SLICES = {"teacher@": "teachers/", "cache@": "caches/"}  # where the slices of stages lie


@dataclass(frozen=True)
class Leftover:
    """A folder of unfinished work, its size in bytes, and why nothing will resume it."""

    path: Path
    size: int
    reason: str

    def remove(self) -> None:
        """Remove the folder and the file beside it, unless its stage has started."""
        if is_running(self.path.parent):
            return
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.with_suffix(IDENTITY).unlink(missing_ok=True)


def find_leftovers(root: Path, slices: Slices, data: str | None) -> list[Leftover]:
    """The leftovers of all stages, without those of a stage that is running.

    Args:
        root: the folder of all unfinished work.
        slices: what the current parameters give each stage, by path.
        data: the fingerprint of the data that these parameters prepare; None if unknown.
    """
    found: list[Leftover] = []
    for stage in sorted(root.iterdir()) if root.is_dir() else []:
        if not stage.is_dir() or is_running(stage):
            continue
        folders = [folder for folder in stage.iterdir() if folder.is_dir()]
        current = slices.get(_slice_name(stage.name))
        if stage.name == "prepare" and current is not None:
            current = reading(current)
        resumed = False
        for folder in sorted(folders, key=_newest, reverse=True):
            identity = _identity(folder)
            parameters = "config" in identity or not identity  # evaluate has none
            if current is None and parameters:
                reason = f"{stage.name} is not part of the current parameters"
            elif identity.get("config") != current:
                reason = "for other parameters"
            elif data is None and "data" in identity:
                continue
            elif identity.get("data", data) != data:
                reason = "for other data"
            elif resumed:
                reason = "older, for other inputs or code"
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


def current_data(slices: Slices) -> str | None:
    """The fingerprint of the prepared data; None if there are none for these parameters."""
    try:
        manifest = read_sealed(DATA / "manifest.json", "dvc repro prepare")
        prepared = read_sealed(CONFIG / "prepare.json", "dvc repro configure")
    except UserError:
        return None
    own = {key: value for key, value in prepared.items() if key != "fingerprint"}
    return str(manifest["fingerprint"]) if own == slices["prepare"] else None


def _identity(folder: Path) -> Mapping[str, Any]:
    """The parameters and inputs that a folder is for; empty if unknown."""
    try:
        return read_json(folder.with_suffix(IDENTITY), "python -m meal clean")
    except UserError:
        return {}


def _newest(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


def _size(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))
