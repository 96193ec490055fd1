"""Flip single bits in outputs and in DVC's cache: each is noticed by name, or changes nothing."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from meal.cache.settings import CacheSlice
from meal.core.errors import UserError
from meal.core.settings import load_slice
from meal.distill.settings import DistillSlice
from meal.ensemble.settings import EnsembleSlice
from meal.export.settings import ExportSlice
from meal.prepare.settings import PrepareSlice
from meal.report.settings import ReportSlice
from meal.supervised.settings import SupervisedSlice
from tests.soak.common import Tally, different, hashes
from tests.stages.conftest import Project
from tests.stages.test_corruption import OPENERS


def open_slices(folder: Path) -> None:
    """Open every slice, as the stages do."""
    load_slice(PrepareSlice, folder / "prepare.json")
    load_slice(EnsembleSlice, folder / "ensemble.json")
    load_slice(DistillSlice, folder / "distill.json")
    load_slice(ReportSlice, folder / "report.json")
    load_slice(ExportSlice, folder / "export.json")
    for file in [folder / "baseline.json", *sorted((folder / "teachers").glob("*.json"))]:
        load_slice(SupervisedSlice, file)
    for file in sorted((folder / "caches").glob("*.json")):
        load_slice(CacheSlice, file)


def openers(artifacts: Path) -> dict[str, Callable[[Path], object]]:
    """How each output folder is opened by the stages that read it."""
    kinds = {name.partition("/")[0]: opener for name, opener in OPENERS.items()}
    found: dict[str, Callable[[Path], object]] = {"config": open_slices}
    for folder in sorted(path for path in artifacts.iterdir() if path.is_dir()):
        if folder.name in ("teachers", "caches"):
            found |= {f"{folder.name}/{each.name}": kinds[folder.name] for each in folder.iterdir()}
        elif folder.name != "config":
            found[folder.name] = kinds[folder.name]
    return found


def flip_outputs(project: Project, flips: int, seed: int) -> Tally:
    """Flip bits in the files below `artifacts/`; size, time and mode stay as they were."""
    tally, artifacts = Tally("bits in `artifacts/`"), project.folder / "artifacts"
    opens = openers(artifacts)
    files = sorted(path for path in artifacts.rglob("*") if path.is_file())
    for index in range(flips):
        moment = random.Random(f"{seed} {index}")
        file = files[index] if index < len(files) else moment.choice(files)
        name = next(each for each in opens if file.is_relative_to(artifacts / each))
        tally.attempts += 1
        with flipped(file, moment):
            try:
                opens[name](artifacts / name)
            except UserError as error:
                tally.noticed += file.name in str(error)
                if file.name not in str(error):
                    tally.differing.append(f"{file}: {error}")
            else:
                tally.differing.append(f"{file}: not noticed")
    return tally


def flip_cache(project: Project, flips: int, seed: int) -> Tally:
    """Flip bits in DVC's cache, then check the outputs out of it."""
    tally = Tally("bits in DVC's cache")
    project.run("dvc", "config", "--local", "cache.type", "copy")
    project.run("dvc", "checkout", "--relink", "-q")
    artifacts = project.folder / "artifacts"
    opens, expected = openers(artifacts), hashes(project.folder, ("artifacts",))
    files = sorted(
        path for path in (project.folder / ".dvc/cache/files").rglob("*") if path.is_file()
    )
    for index in range(flips):
        moment = random.Random(f"{seed} {index}")
        file = moment.choice(files)
        tally.attempts += 1
        with flipped(file, moment):
            shutil.rmtree(artifacts)
            result = project.run("dvc", "checkout", "-q", "-f", check=False)
            if result.returncode:
                tally.noticed += 1
                continue
            try:
                for name, opener in opens.items():
                    opener(artifacts / name)
            except UserError as error:
                tally.noticed += artifacts.name in str(error)
                if artifacts.name not in str(error):
                    tally.differing.append(f"{file}: {error}")
                continue
            changed = different(expected, hashes(project.folder, ("artifacts",)))
            if changed:
                tally.differing.append(f"{file}: {changed}")
            else:
                tally.resumed += 1  # not part of these outputs: they are unchanged
    return tally


@contextmanager
def flipped(file: Path, moment: random.Random) -> Iterator[None]:
    """A random bit of a file is flipped inside the block; DVC sees no change of the file."""
    known, whole = file.stat(), file.read_bytes()
    content = bytearray(whole)
    content[moment.randrange(len(content))] ^= 1 << moment.randrange(8)
    _write(file, bytes(content), known)
    try:
        yield
    finally:
        _write(file, whole, known)


def _write(file: Path, content: bytes, known: os.stat_result) -> None:
    file.chmod(0o644)
    with file.open("r+b") as opened:
        opened.write(content)
    os.utime(file, ns=(known.st_atime_ns, known.st_mtime_ns))
    file.chmod(known.st_mode & 0o777)
