"""Damage is noticed when a file is opened, and reported in one line with the command to fix it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from meal.core.errors import UserError
from meal.core.files import read_sealed
from meal.core.paths import SIGNIFICANCE
from meal.data.prepared import SPLITS, open_prepared
from meal.evaluation.predictions import FIX, Predictions
from meal.models.checkpoint import load
from meal.predict.card import Card
from meal.targets.cache import TargetCache
from meal.targets.ensemble import Ensemble
from tests.stages.conftest import Project


def open_data(folder: Path) -> None:
    data = open_prepared(folder)
    for split in SPLITS:
        data.images(split)
        data.labels(split)


def open_cache(folder: Path) -> None:
    check_arrays(TargetCache(folder, f"cache@{folder.name}"))


def check_arrays(cache: TargetCache) -> None:
    for name in cache.manifest["files"]:
        cache.check(name)


def open_ensemble(folder: Path) -> None:
    ensemble = Ensemble(folder)
    for cache in (*ensemble.members.values(), ensemble.mean):
        check_arrays(cache)


def open_predictions(folder: Path) -> None:
    Predictions.load(folder)
    read_sealed(folder / SIGNIFICANCE.name, FIX)


def open_export(folder: Path) -> None:
    card = Card.read(folder)
    for name in card.content["files"]:
        card.file(name)


OPENERS: dict[str, Callable[[Path], object]] = {
    "data": open_data,
    "teachers/vgg": load,
    "caches/vgg": open_cache,
    "ensemble": open_ensemble,
    "baseline": load,
    "student": load,
    "predictions": open_predictions,
    "export": open_export,
}


@pytest.fixture
def artifacts(clean: Project, tmp_path: Path) -> Path:
    """A copy of the outputs of the project's stages."""
    shutil.copytree(clean.folder / "artifacts", tmp_path / "artifacts")
    for path in (tmp_path / "artifacts").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path / "artifacts"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def reshape(path: Path) -> None:
    """Make a file readable but wrong: another shape and type, other values, or an extra byte."""
    if path.suffix == ".npy":
        array = np.load(path)
        array = array[..., :-1]
        np.save(path, array if array.dtype.names else array.astype(np.float64))  # records: fewer
    elif path.suffix == ".json":
        values = json.loads(path.read_text())
        values["classes" if "classes" in values else "name"] = 7
        path.write_text(json.dumps(values))
    else:
        path.write_bytes(path.read_bytes() + b"\0")


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [flip, truncate, empty, reshape, remove])
@pytest.mark.parametrize("name", OPENERS)
def test_damage_is_noticed_and_reported_with_the_command_to_fix_it(
    name: str, damage: Callable[[Path], None], artifacts: Path
) -> None:
    OPENERS[name](artifacts / name)  # undamaged files can be read
    files = sorted(path for path in (artifacts / name).rglob("*") if path.is_file())
    assert len(files) >= 2
    for file in files:
        content = file.read_bytes()
        damage(file)
        with pytest.raises(UserError) as error:
            OPENERS[name](artifacts / name)
        message = str(error.value)
        assert file.name in message, (file, message)
        gone = name == "export" and file.name == "model.json" and not file.exists()
        assert ("fix: dvc repro" in message or gone) and "\n" not in message
        file.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "links"), [*((name, "hardlink") for name in OPENERS), ("caches/vgg", "copy")]
)
def test_the_command_in_the_message_repairs_bit_rot(name: str, links: str, clean: Project) -> None:
    """Size, mtime and mode stay what DVC knows, even for the hard link in its own cache."""
    clean.run("dvc", "config", "--local", "cache.type", links)
    clean.run("dvc", "checkout", "--relink", "-q")
    folder = clean.folder / "artifacts" / name
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    kinds = {path.suffix: path for path in files}  # one of each kind, as each takes a run
    for file in kinds.values():
        whole, known = file.read_bytes(), file.stat()
        file.chmod(0o644)
        content = bytearray(whole)
        content[len(content) // 2] ^= 4
        with file.open("r+b") as opened:
            opened.write(content)
        file.chmod(known.st_mode & 0o777)
        os.utime(file, ns=(known.st_atime_ns, known.st_mtime_ns))
        with pytest.raises(UserError) as error:
            OPENERS[name](folder)
        command = str(error.value).partition("fix: ")[2]
        clean.run(*command.split())
        assert file.read_bytes() == whole, (file, command)
        OPENERS[name](folder)


FULL = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
stage, *arguments = sys.argv[2:]
sys.argv = ["stages." + stage, *arguments]
runpy.run_module("stages." + stage, run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "output"),
    [
        ("prepare", "artifacts/data"),
        ("teacher vgg", "artifacts/teachers/vgg"),
        ("cache vgg", "artifacts/caches/vgg"),
        ("ensemble", "artifacts/ensemble"),
        ("distill", "artifacts/student"),
        ("evaluate", "artifacts/predictions"),
        ("report", "reports/figures"),
        ("export", "artifacts/export"),
    ],
)
def test_a_full_disk_is_a_one_line_error_and_leaves_nothing_that_looks_complete(
    stage: str, output: str, clean: Project
) -> None:
    """Files may not grow beyond 2 KiB, so every large write fails, as on a full disk."""
    assert hasattr(resource, "RLIMIT_FSIZE")
    shutil.rmtree(clean.folder / output)  # as DVC does before it runs a stage
    result = subprocess.run(
        [sys.executable, "-c", FULL, "2048", *stage.split()],
        cwd=clean.folder,
        capture_output=True,
        text=True,
    )
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1
    assert last.startswith("error: ") and "Traceback" not in result.stderr
    assert not (clean.folder / output).exists()
