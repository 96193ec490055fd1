"""Whether a revision's results are stale, according to its parameters and its dvc.lock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree, TreeError

from meal.core.errors import UserError
from meal.core.paths import PARAMS
from meal.core.settings import read_yaml
from meal.experiments.repository import open_repository

LOGGER = logging.getLogger(__name__)

LOCK = "dvc.lock"
_OTHERS = ("runtime", "export")  # keys of params.yaml that change no score
# The stages behind scores on test images, behind the student's score on validation, and behind what
# is known before there is a student. Those of the teachers come in addition.
TESTED = ("configure", "prepare", "ensemble", "baseline", "distill", "evaluate")
VALIDATED = ("configure", "prepare", "ensemble", "distill")
TAUGHT = ("configure", "prepare", "ensemble", "baseline")
_TEACHERS = ("teacher", "cache")  # stages of each teacher

Folder = Mapping[str, str]  # the hashes of a folder's files, by their path in it
FolderReader = Callable[[str], Folder | None]  # from a folder's hash; None if it is not at hand


@dataclass(frozen=True)
class Freshness:
    """Whether results are stale.

    Attributes:
        stale: why they are; empty if they are not.
        unknown: folders whose files could not be compared; the results may be stale.
    """

    stale: str
    unknown: tuple[str, ...] = ()


def folder_reader(repo: Repo) -> FolderReader:
    """Reads folders' hashes from DVC's cache."""

    def read(value: str) -> Folder | None:
        try:
            tree = Tree.load(repo.cache.local, HashInfo("md5", value))
        except (FileNotFoundError, TreeError, ValueError):
            return None
        return {"/".join(key): info.value for key, (_, info) in tree.iteritems() if info.value}

    return read


def freshness(
    name: str,
    lock: Mapping[str, Any],
    params: Mapping[str, Any],
    read: FolderReader,
    stages: Sequence[str] = TESTED,
) -> Freshness:
    """Whether the results of a revision are stale.

    Args:
        name: the revision, for the message.
        lock: its dvc.lock.
        params: its params.yaml.
        read: reads folders' hashes.
        stages: those that computed the results, without those of the teachers.
    """
    known = lock.get("stages", {})
    ran = known.get("configure", {}).get("params", {}).get(PARAMS.name)
    if ran is not None and _deciding(ran) != _deciding(params):
        return Freshness(f"{name} is stale: its {PARAMS} changed after the run")
    # The lock file also keeps stages of teachers that are no longer chosen.
    teachers = params.get("teachers") or []
    expected = [*stages, *(f"{stage}@{name}" for stage in _TEACHERS for name in teachers)]
    lacking = [stage for stage in expected if stage not in known]
    if lacking:
        return Freshness(f"{name} is stale: its {LOCK} has no run of {', '.join(lacking)}")
    entries = {stage: known[stage] for stage in expected}
    found = _Outputs(entries.values(), read)
    late = [
        stage
        for stage, entry in entries.items()
        if not all(found.agrees(dep["path"], dep.get("md5")) for dep in entry.get("deps", []))
    ]
    verb = "is" if len(late) == 1 else "are"
    stale = f"{name}: {', '.join(late)} {verb} stale: inputs changed" if late else ""
    return Freshness(stale, tuple(dict.fromkeys(found.unknown)))


def warn_if_stale(stages: Sequence[str] = TESTED) -> None:
    """Warn if what these stages have computed in the workspace is stale."""
    try:
        with open_repository() as repo:
            lock, params = read_yaml(Path(LOCK)), read_yaml(PARAMS)
            found = freshness("this run", lock, params, folder_reader(repo), stages)
    except UserError:  # no git, or no dvc.lock: nothing to compare with
        return
    if found.stale:
        LOGGER.warning("%s; run: dvc repro", found.stale)


def _deciding(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that can change results."""
    return {key: value for key, value in params.items() if key not in _OTHERS}


@dataclass
class _Outputs:
    """The hashes of all stages' outputs, and which of them could not be compared."""

    stages: Iterable[Mapping[str, Any]]
    read: FolderReader
    unknown: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        outs = [out for stage in self.stages for out in stage.get("outs", [])]
        self._made: dict[str, str] = {out["path"]: out["md5"] for out in outs if "md5" in out}

    def agrees(self, path: str, value: str | None) -> bool:
        """Whether a dependency has the hash of the output, or of the part, that it is.

        Code is no output of any stage: `dvc repro` compares it.
        """
        if path in self._made:
            return self._made[path] == value
        for out, made in self._made.items():
            if path.startswith(f"{out}/"):  # a file of an output, such as a slice
                files = self.read(made)
                if files is None:
                    self.unknown.append(out)
                    return True
                return files.get(path.removeprefix(f"{out}/")) == value
        inside = {out: made for out, made in self._made.items() if out.startswith(f"{path}/")}
        if not inside:
            return True
        tree = Tree()  # a folder of several outputs, such as that of the caches
        for out, made in inside.items():
            files = self.read(made) if made.endswith(".dir") else {"": made}
            if files is None:
                self.unknown.append(out)
                return True
            for key, hash_ in _below(out.removeprefix(f"{path}/"), files):
                tree.add(key, None, HashInfo("md5", hash_))
        tree.digest()
        return bool(tree.hash_info.value == value)


def _below(folder: str, files: Folder) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, value in files.items():
        yield tuple(part for part in (*folder.split("/"), *name.split("/")) if part), value
