"""The chosen teachers together: their caches, and the mean of their answers.

The ensemble's folder hard-links the caches of its members and adds `mean`, a cache of the same form
whose logits are the log of the mean probability and whose blocks are the mean of the members'
standardised blocks. Whatever comes after reads this folder alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meal.data.prepared import Split
from meal.files import atomic_folder, link, read_sealed, write_sealed
from meal.metrics import Floats, log_softmax
from meal.nets.blocks import ALIGNED
from meal.nets.weights import NetworkSpec
from meal.teaching.cache import PLAIN_SPLITS, AnswerCache, create, seal
from meal.teaching.topk import compress, index_dtype

MEAN = "mean"
_ROWS = 8192  # images whose answers are averaged at once
_MUST_AGREE = ("data", "views", "view_count", "alignment", "enabled", "dtype", "top_k")


def build_ensemble(teachers: Sequence[str], caches: Path, folder: Path) -> None:
    """Link the caches of `teachers` into `folder` and add their mean.

    Raises:
        ValueError: if a cache is missing, damaged, or answers other views or data than the rest.
    """
    with atomic_folder(folder) as temporary:
        members: list[AnswerCache] = []
        for name in teachers:
            opened = AnswerCache(caches / name)
            members.append(opened)
            for key in _MUST_AGREE:
                if opened.manifest[key] != members[0].manifest[key]:
                    raise ValueError(
                        f"{caches / name} and {members[0].folder} differ in {key}; "
                        "mend it with: dvc repro ensemble"
                    )
            for file in ("manifest.json", *opened.manifest["files"]):
                link(opened.folder / file, temporary / name / file)
        _write_mean(members, temporary / MEAN)
        write_sealed(
            temporary / "ensemble.json",
            {
                "teachers": list(teachers),
                "caches": [cache.manifest["fingerprint"] for cache in members],
            },
        )


def mean_log_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """The log of the mean of the members' probabilities: `(N, C)` each, to `(N, C)`, float32."""
    members = torch.stack([torch.log_softmax(member.double(), dim=1) for member in logits])
    return (torch.logsumexp(members, dim=0) - np.log(len(members))).float()


def standardise(values: Tensor, moments: tuple[Tensor, Tensor]) -> Tensor:
    """Values `(N, 16)` less their mean `(16,)`, over their deviation `(16,)`."""
    mean, deviation = moments
    return (values - mean) / deviation


def mean_block(members: Sequence[Tensor]) -> Tensor:
    """The mean of the members' standardised values `(N, 16)`."""
    return torch.stack(list(members)).mean(dim=0)


def _write_mean(members: Sequence[AnswerCache], folder: Path) -> None:
    """Write the mean of the members' answers as a cache of its own, view by view."""
    folder.mkdir()
    first = members[0].manifest
    blocks = sorted({block for cache in members for block in cache.blocks})
    for split in PLAIN_SPLITS:
        plain = [torch.from_numpy(np.array(cache.plain_logits(split))) for cache in members]
        np.save(folder / f"{split}_logits.npy", mean_log_probabilities(plain).numpy())
    if first["enabled"]:
        _write_mean_logits(members, folder)
        for block in blocks:
            having = [cache for cache in members if block in cache.blocks]
            stored = having[0].array(f"block{block}")
            values = create(folder / f"block{block}.npy", stored.dtype, stored.shape)
            for view, rows in _chunks(stored.shape):
                answers = [
                    standardise(cache.block(block, view, rows), cache.moments(block))
                    for cache in having
                ]
                values[view, rows] = mean_block(answers).numpy()
    unit = {"mean": [0.0] * ALIGNED, "deviation": [1.0] * ALIGNED}
    shared = {key: first[key] for key in _MUST_AGREE}
    names = [cache.manifest["name"] for cache in members]
    seal(
        folder,
        {"name": MEAN, **shared, "mean_of": names, "blocks": {str(k): unit for k in blocks}},
    )


def _write_mean_logits(members: Sequence[AnswerCache], folder: Path) -> None:
    """The mean's logits, or its k largest shares, as the members have them."""
    manifest, classes = members[0].manifest, members[0].classes
    rows: tuple[int, int] = members[0].array(_first_array(manifest)).shape[:2]
    dtype, k = np.dtype(manifest["dtype"]), manifest["top_k"]
    if k is None:
        arrays = [create(folder / "logits.npy", dtype, (*rows, classes))]
    else:
        arrays = [
            create(folder / "top_indices.npy", index_dtype(classes), (*rows, k)),
            create(folder / "top_shares.npy", dtype, (*rows, k)),
        ]
    for view, chunk in _chunks(rows):
        mean = mean_log_probabilities([cache.logits(view, chunk) for cache in members])
        parts = (mean,) if k is None else compress(mean, k)
        for array, values in zip(arrays, parts, strict=True):
            array[view, chunk] = values.numpy()


def _chunks(shape: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Views and spans of images that are worked on at once: memory stays bounded."""
    for view in range(shape[0]):
        for start in range(0, shape[1], _ROWS):
            yield view, slice(start, start + _ROWS)


def _first_array(manifest: dict[str, Any]) -> str:
    return "top_indices" if manifest["top_k"] else "logits"


class Ensemble:
    """The ensemble's folder, opened: answers for evaluation, and targets for distillation."""

    def __init__(self, folder: Path) -> None:
        """Open the output of `build_ensemble`; raises ValueError if it is damaged."""
        try:
            self.card = read_sealed(folder / "ensemble.json")
        except ValueError as error:
            raise ValueError(f"{error}; mend it with: dvc repro ensemble") from None
        self.folder = folder
        self.teachers: list[str] = self.card["teachers"]
        self.members = {name: AnswerCache(folder / name) for name in self.teachers}
        self.mean = AnswerCache(folder / MEAN)

    def spec(self, teacher: str) -> NetworkSpec:
        """The structure of a member."""
        return NetworkSpec(**self.members[teacher].manifest["network"])

    def log_probabilities(self, split: Split) -> tuple[Floats, dict[str, Floats]]:
        """The ensemble's and each member's answers `(N, C)` to the plain images of a split."""
        members = {
            name: log_softmax(cache.plain_logits(split)) for name, cache in self.members.items()
        }
        return log_softmax(self.mean.plain_logits(split)), members

    def check(self, data: str, views: dict[str, Any], view_count: int) -> None:
        """Raise ValueError unless the answers are to these data and these views."""
        expected = {"data": data, "views": views, "view_count": view_count}
        for key, value in expected.items():
            if self.mean.manifest[key] != value:
                raise ValueError(
                    f"the ensemble's answers are to other {key}; mend it with: dvc repro ensemble"
                )
