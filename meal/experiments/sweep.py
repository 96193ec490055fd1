"""A grid of experiments, checked, queued and run by DVC.

The grid is written as DVC and Hydra write it: `distill.adversarial=off,minimax` names two values.
Every combination is checked before the first one runs, and one that is already there is not run
again: an interrupted sweep goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
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

from meal.config.loading import load_params
from meal.files import fingerprint
from meal.nets.resolving import checked_slices, weights_files

POLL_SECONDS = 3


@dataclass(frozen=True)
class Trial:
    """One combination: its `-S` flags, and the name that follows from its parameters."""

    name: str
    overrides: tuple[str, ...]


def plan(overrides: Sequence[str], params: Path) -> list[Trial]:
    """Every combination of a grid.

    Args:
        overrides: `key=value`, or `key=value,value,...` where there are several.
        params: the params file that they change.

    Raises:
        ValueError: if a combination is not a valid params file; its line names the key.
    """
    try:
        sweeps = get_hydra_sweeps({str(params): list(overrides)})
    except Exception as error:  # Hydra's parser has many
        reason = " ".join(str(error).split())
        raise ValueError(f"-S {' '.join(overrides)}: {reason}") from None
    grid = [tuple(sweep[str(params)]) for sweep in sweeps]
    columns = zip(*grid, strict=True)
    varied = {_key(column[0]) for column in columns if len(set(column)) > 1}
    code = _code_digest()
    return [_trial(flags, params, varied, code) for flags in grid]


def run(trials: Sequence[Trial], target: str, jobs: int) -> list[str]:
    """Run what is not there yet, `jobs` experiments at a time; return the names that failed."""
    repo = Repo()
    queue = repo.experiments.celery_queue
    there = set(finished(repo))
    missing = [trial for trial in trials if trial.name not in there]
    waiting = {entry.name for entry in [*queue.iter_queued(), *queue.iter_active()]}
    for trial in missing:
        if trial.name not in waiting:
            flags = [part for flag in trial.overrides for part in ("-S", flag)]
            if dvc(["exp", "run", "--quiet", "--queue", "--name", trial.name, *flags, target]):
                raise ValueError(f"{trial.name}: DVC does not queue it; see its message above")
    # Two processes of one thread get more done than one of two.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    queue.start_workers(count=jobs)
    wanted = {trial.name for trial in missing}
    with tqdm(total=len(wanted), desc="experiments", disable=None) as bar:
        while any(entry.name in wanted for entry in [*queue.iter_queued(), *queue.iter_active()]):
            bar.update(len(wanted & set(finished(repo))) - bar.n)
            time.sleep(POLL_SECONDS)
        done = set(finished(repo))
        bar.update(len(wanted & done) - bar.n)
    return sorted(wanted - done)


def finished(repo: Repo) -> Iterator[str]:
    """Names of the experiments that derive from the current commit."""
    for experiments in repo.experiments.ls(rev="HEAD").values():
        yield from (name for name, _ in experiments)


def _key(flag: str) -> str:
    return flag.split("=", 1)[0]


def _trial(overrides: tuple[str, ...], params: Path, varied: set[str], code: str) -> Trial:
    """Check one combination, and name it by what varies and by all of its parameters."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / params.name
        shutil.copyfile(params, copy)
        try:
            apply_overrides(copy, list(overrides))
        except DvcException:
            raise ValueError(f"-S {' '.join(overrides)}: not keys of {params.name}") from None
        checked = load_params(copy)
        checked_slices(checked, params.name)
    for key, weights in weights_files(checked).items():
        if weights.file is not None and not Path(weights.file).is_absolute():
            raise ValueError(
                f"{key}.file={weights.file!r}: experiments of a sweep run in folders of their own; "
                "give the whole path"
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


def _code_digest() -> str:
    """A digest of how the code differs from the commit that the experiments derive from."""
    command = ("git", "diff", "HEAD", "--", "meal", "stages", "networks", "dvc.yaml")
    changed = subprocess.run(command, capture_output=True, check=False).stdout
    return hashlib.sha256(changed).hexdigest()
