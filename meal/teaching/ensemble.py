"""The chosen teachers together: their caches, the mean of their answers, and which of them speaks.

The ensemble's folder hard-links the caches of its members and adds `mean`, a cache of the same form
whose logits are the log of the mean probability and whose blocks are the mean of the members'
standardised blocks. Whatever comes after reads this folder alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from meal.config import Method
from meal.data.batches import Purpose, derive_seed
from meal.data.prepared import Split
from meal.data.views import hash_integers
from meal.files import atomic_folder, read_sealed, write_sealed
from meal.metrics import Floats, log_softmax
from meal.nets.weights import NetworkSpec
from meal.teaching.cache import PLAIN_SPLITS, AnswerCache, seal

MEAN = "mean"
_MUST_AGREE = ("data", "views", "view_count", "alignment", "dtype")


@dataclass(frozen=True)
class Targets:
    """What the teachers say to a batch.

    Attributes:
        logits: `(N, C)`; log-probabilities where the mean speaks.
        blocks: values `(n, 16)` by block number, and the rows of the batch that they belong to:
            None where all do, fewer where the teacher of some images lacks the block.
    """

    logits: Tensor
    blocks: dict[int, tuple[Tensor, Tensor | None]]


def build_ensemble(teachers: Sequence[str], caches: Path, folder: Path) -> None:
    """Link the caches of `teachers` into `folder` and add their mean.

    Raises:
        ValueError: if a cache is missing, damaged, or answers other views or data than the rest.
    """
    with atomic_folder(folder) as temporary:
        members = []
        for name in teachers:
            opened = AnswerCache(caches / name)
            members.append(opened)
            for key in _MUST_AGREE:
                if opened.manifest[key] != members[0].manifest[key]:
                    raise ValueError(
                        f"{caches / name} and {members[0].folder} differ in {key}; "
                        "mend it with: dvc repro ensemble"
                    )
            (temporary / name).mkdir()
            for path in opened.folder.iterdir():
                _link(path, temporary / name / path.name)
        _write_mean(members, temporary / MEAN)
        write_sealed(
            temporary / "ensemble.json",
            {
                "teachers": list(teachers),
                "caches": [cache.manifest["fingerprint"] for cache in members],
            },
        )


def _link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_mean(members: Sequence[AnswerCache], folder: Path) -> None:
    """Write the mean of the members' answers as a cache of its own, view by view."""
    folder.mkdir()
    first = members[0].manifest
    shape = members[0].array("logits").shape
    logits = _create(folder / "logits.npy", first["dtype"], shape)
    for view in range(shape[0]):
        logits[view] = mean_log_probabilities([cache.array("logits")[view] for cache in members])
    blocks = sorted({block for cache in members for block in cache.blocks})
    for block in blocks:
        having = [cache for cache in members if block in cache.blocks]
        shape = having[0].array(f"block{block}").shape
        values = _create(folder / f"block{block}.npy", first["dtype"], shape)
        for view in range(shape[0]):
            values[view] = np.mean([_standardised(cache, block, view) for cache in having], axis=0)
    for split in PLAIN_SPLITS:
        plain = mean_log_probabilities([cache.array(f"{split}_logits") for cache in members])
        np.save(folder / f"{split}_logits.npy", plain.astype(np.float32))
    unit = {"mean": [0.0] * shape[-1], "deviation": [1.0] * shape[-1]}
    seal(
        folder,
        {
            "name": MEAN,
            **{k: first[k] for k in _MUST_AGREE},
            "blocks": {str(k): unit for k in blocks},
        },
    )


def mean_log_probabilities(logits: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The log of the mean of the members' probabilities: logits `(N, C)` each, to `(N, C)`."""
    members = np.stack([log_softmax(member) for member in logits])
    return np.logaddexp.reduce(members, axis=0) - np.log(len(members))


def _standardised(cache: AnswerCache, block: int, view: int) -> NDArray[Any]:
    mean, deviation = cache.moments(block)
    return (cache.array(f"block{block}")[view].astype(np.float32) - mean) / deviation


def _create(path: Path, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    array: NDArray[Any] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    return array


class Ensemble:
    """The ensemble's folder, opened: answers for evaluation, and targets for distillation."""

    def __init__(self, folder: Path) -> None:
        """Open the output of `build_ensemble`; raises ValueError if it is damaged."""
        try:
            self.card = read_sealed(folder / "ensemble.json")
        except ValueError as error:
            raise ValueError(f"{error}; mend it with: dvc repro --force ensemble") from None
        self.teachers: list[str] = self.card["teachers"]
        self.members = {name: AnswerCache(folder / name) for name in self.teachers}
        self.mean = AnswerCache(folder / MEAN)

    def spec(self, teacher: str) -> NetworkSpec:
        """The structure of a member."""
        return NetworkSpec(**self.members[teacher].manifest["network"])

    def log_probabilities(self, split: Split) -> tuple[Floats, dict[str, Floats]]:
        """The ensemble's and each member's answers `(N, C)` to the plain images of a split."""
        members = {
            name: log_softmax(cache.array(f"{split}_logits"))
            for name, cache in self.members.items()
        }
        return log_softmax(self.mean.array(f"{split}_logits")), members

    def check(self, data: str, views: dict[str, Any], view_count: int) -> None:
        """Raise ValueError unless the answers are to these data and these views."""
        expected = {"data": data, "views": views, "view_count": view_count}
        for key, value in expected.items():
            if self.mean.manifest[key] != value:
                raise ValueError(
                    f"the ensemble's answers are to other {key}; mend it with: dvc repro ensemble"
                )


class TargetReader:
    """Reads what the teachers say to a view of a batch, from their caches."""

    def __init__(
        self,
        ensemble: Ensemble,
        method: Method,
        seed: int,
        device: torch.device,
    ) -> None:
        """Choose who speaks.

        Args:
            ensemble: the opened caches.
            method: its `selection` says who speaks, its `blocks` and `norm` what is read.
            seed: decides the random choices, by step and image.
            device: where targets go.
        """
        mean = method.selection == MEAN
        speakers = [ensemble.mean] if mean else list(ensemble.members.values())
        standardise = method.norm == "standardise"
        self._speakers = [_Speaker(cache, method.blocks, standardise) for cache in speakers]
        self._per_image = method.selection == "random_per_image"
        self._seed, self._device = seed, device

    def targets(self, images: Tensor, view: int, step: int) -> Targets:
        """The answers to view `view` of images `(N,)`, at `step` of the run."""
        rows = images.cpu().numpy()
        if not self._per_image:
            speaker = self._speakers[
                derive_seed(self._seed, Purpose.SELECTION, step) % len(self._speakers)
            ]
            logits, blocks = speaker.answers(view, rows)
            return Targets(self._tensor(logits), {k: (self._tensor(v), None) for k, v in blocks})
        chosen = hash_integers(self._seed, Purpose.SELECTION, step, images.cpu()).numpy() % len(
            self._speakers
        )
        logits = np.empty((len(rows), self._speakers[0].classes), dtype=np.float32)
        parts: dict[int, list[tuple[NDArray[Any], NDArray[Any]]]] = {}
        for index, speaker in enumerate(self._speakers):
            mine = np.flatnonzero(chosen == index)
            logits[mine], blocks = speaker.answers(view, rows[mine])
            for block, values in blocks:
                parts.setdefault(block, []).append((values, mine))
        joined: dict[int, tuple[Tensor, Tensor | None]] = {}
        for block, pieces in parts.items():
            values, owners = (np.concatenate(side) for side in zip(*pieces, strict=True))
            joined[block] = self._tensor(values), torch.from_numpy(owners).to(self._device)
        return Targets(self._tensor(logits), joined)

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)


class _Speaker:
    """One cache as a reader uses it."""

    def __init__(self, cache: AnswerCache, blocks: Sequence[int], standardise: bool) -> None:
        self._logits = cache.array("logits")
        self.classes = self._logits.shape[-1]
        self._blocks = {}
        for block in sorted(set(blocks) & set(cache.blocks)):
            mean, deviation = (
                cache.moments(block) if standardise else (np.float32(0), np.float32(1))
            )
            self._blocks[block] = cache.array(f"block{block}"), mean, deviation

    def answers(
        self, view: int, rows: NDArray[Any]
    ) -> tuple[NDArray[np.float32], list[tuple[int, NDArray[np.float32]]]]:
        """Logits `(N, C)` and blocks `(N, 16)` of images `rows` in one view, float32."""
        blocks = [
            (block, (array[view, rows].astype(np.float32) - mean) / deviation)
            for block, (array, mean, deviation) in self._blocks.items()
        ]
        return self._logits[view, rows].astype(np.float32), blocks
