"""A grid of experiments, checked, queued and run by DVC.

The grid is written in the syntax of DVC and Hydra: `distill.adversarial=off,minimax` gives two
values. Every combination is checked before the first one runs. Finished ones are not run again, so
an interrupted sweep resumes where it stopped.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dvc.cli import main as dvc
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from tqdm import tqdm

from meal.configure.checks import checked_slices, weights_files
from meal.configure.schema import load_params
from meal.core.digests import code_digest, fingerprint
from meal.core.errors import UserError
from meal.experiments.abandoned import abandoned, end, forget_failed
from meal.experiments.cores import share_cores
from meal.experiments.repository import open_repository

POLL_SECONDS = 3
_IDLE_SECONDS = 60  # after which workers are started again, and abandoned experiments ended
_COLLECT_SECONDS = 10  # that a worker may need to store an experiment whose process has ended


@dataclass(frozen=True)
class Trial:
    """One combination: its `-S` overrides, and a name derived from its parameters."""

    name: str
    overrides: tuple[str, ...]


def plan(overrides: Sequence[str], params: Path) -> list[Trial]:
    """Every combination of a grid.

    Args:
        overrides: `key=value`, or `key=value,value,...` for several values.
        params: the params file that they change.

    Raises:
        UserError: if a combination does not give valid parameters; the message names the key.
    """
    try:
        sweeps = get_hydra_sweeps({str(params): list(overrides)})
    except Exception as error:  # Hydra's parser raises many kinds
        reason = " ".join(str(error).split())
        raise UserError(f"-S {' '.join(overrides)}: {reason}") from None
    grid = [tuple(sweep[str(params)]) for sweep in sweeps]
    columns = zip(*grid, strict=True)
    varied = {_key(column[0]) for column in columns if len(set(column)) > 1}
    code = _code()
    return [_trial(flags, params, varied, code) for flags in grid]


def run(trials: Sequence[Trial], target: str, jobs: int) -> list[str]:
    """Run the missing trials, `jobs` at a time; return the names of those that failed."""
    repo = open_repository()
    queue = repo.experiments.celery_queue
    there = set(finished(repo))
    missing = [trial for trial in trials if trial.name not in there]
    names = {trial.name for trial in missing}
    if lone := abandoned(queue, names):
        time.sleep(_COLLECT_SECONDS)
        end(queue, lone & abandoned(queue, names))
    forget_failed(queue, names)
    waiting = {entry.name for entry in [*queue.iter_queued(), *queue.iter_active()]}
    for trial in missing:
        if trial.name not in waiting:
            flags = [part for flag in trial.overrides for part in ("-S", flag)]
            if dvc(["exp", "run", "--quiet", "--queue", "--name", trial.name, *flags, target]):
                raise UserError(f"{trial.name}: DVC could not queue it; see its message above")
    share_cores(os.environ, jobs)
    queue.start_workers(count=jobs)
    return _follow(repo, names, jobs)


def _follow(repo: Repo, wanted: set[str], jobs: int) -> list[str]:
    """Say what becomes of experiments until all have ended; return those that failed."""
    queue = repo.experiments.celery_queue
    told: dict[str, str] = {}  # the last word about each experiment
    gone: set[str] = set()  # in no list at the last look
    worked = time.monotonic()  # when an experiment was last seen running
    looked, lone = worked, set[str]()  # when, and which were abandoned then
    with tqdm(total=len(wanted), desc="experiments", disable=None) as bar:
        while True:
            # In the order in which an experiment passes through them, so that none is overlooked.
            queued = wanted & {entry.name for entry in queue.iter_queued()}
            active = wanted & {entry.name for entry in queue.iter_active()}
            done = wanted & set(finished(repo))
            lost = wanted - queued - active - done
            failed, gone = gone & lost, lost
            words = {"finished": done, "failed": failed, "started": active - done}
            for word, names in words.items():
                for name in sorted(name for name in names if told.get(name) != word):
                    bar.write(f"{word} {name} ({len(done)} of {len(wanted)} done)", sys.stdout)
                    sys.stdout.flush()
                    told[name] = word
            bar.update(len(done) - bar.n)
            if wanted == done | failed:
                return sorted(failed)
            now = time.monotonic()
            if now - looked > _IDLE_SECONDS:
                looked, before, lone = now, lone, abandoned(queue, active)
                end(queue, lone & before)
            if active or not queued:
                worked = now
            elif now - worked > _IDLE_SECONDS:  # a worker that was about to end took none of them
                queue.start_workers(count=jobs)
                worked = now
            time.sleep(POLL_SECONDS)


def finished(repo: Repo) -> Iterator[str]:
    """Names of the experiments derived from the current commit."""
    for experiments in repo.experiments.ls(rev="HEAD").values():
        yield from (name for name, _ in experiments)


def _key(flag: str) -> str:
    return flag.split("=", 1)[0]


def _trial(overrides: tuple[str, ...], params: Path, varied: set[str], code: str) -> Trial:
    """Check one combination; name it by what varies, and a digest of parameters and code."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / params.name
        shutil.copyfile(params, copy)
        try:
            apply_overrides(copy, list(overrides))
        except DvcException:
            raise UserError(f"-S {' '.join(overrides)}: not a key of {params.name}") from None
        checked = load_params(copy)
        checked_slices(checked, params.name)
    for key, weights in weights_files(checked).items():
        if weights.file is not None and not Path(weights.file).is_absolute():
            raise UserError(
                f"{key}.file={weights.file!r}: experiments of a sweep run in their own folders; "
                "give the absolute path"
            )
    pairs = [flag.split("=", 1) for flag in overrides]
    words = [
        f"{key.rsplit('.', 1)[-1]}-{'none' if value == '[]' else value}"
        for key, value in pairs
        if key in varied or not varied
    ]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(words)).strip("-")
    content = checked.model_dump(mode="json", exclude={"runtime"})
    return Trial(f"{readable}-{fingerprint({'params': content, 'code': code})[:8]}", overrides)


def _code() -> str:
    """A code digest of the whole project: a change to the code makes new experiments."""
    root = Path.cwd()
    files = [root / "dvc.yaml"]
    for folder in ("meal", "stages", "networks"):
        files += (root / folder).rglob("*.py")
    return code_digest(files, root)
