"""The chosen teachers together: their caches, and the mean of their answers.

The ensemble's folder hard-links the caches of its members and adds `mean`, a cache of the same form
whose logits are the log of the mean probability and whose blocks are the mean of the members'
standardised blocks. Whatever comes after reads this folder alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from meal.data.prepared import Split
from meal.files import atomic_folder, link, read_sealed, write_sealed
from meal.metrics import Floats, Labels, log_softmax
from meal.nets.spec import NetworkSpec
from meal.teaching.cache import PLAIN_SPLITS, AnswerCache, create, seal
from meal.teaching.topk import compress, index_dtype
from meal.teaching.weighting import fit_weights, uniform_weights

MEAN = "mean"
_ROWS = 8192  # images whose answers are averaged at once
_MUST_AGREE = ("data", "views", "view_count", "alignment", "align", "enabled", "dtype", "top_k")


def build_ensemble(
    teachers: Sequence[str],
    caches: Path,
    folder: Path,
    labels: Labels,
    weights: Literal["uniform", "fitted"] = "uniform",
) -> None:
    """Link the caches of `teachers` into `folder` and add their mean.

    Args:
        teachers: names of the members.
        caches: the folder that holds their caches.
        folder: where the ensemble goes.
        labels: of the validation images, on which weights are fitted.
        weights: which weights the mean and the choice of a speaker follow.

    Raises:
        ValueError: if a cache is missing, damaged, or answers other views or data than the rest.
    """
    with atomic_folder(folder) as temporary:
        members: list[AnswerCache] = []
        for name in teachers:
            opened = AnswerCache(caches / name, f"cache@{name}")
            members.append(opened)
            for key in _MUST_AGREE:
                if opened.manifest[key] != members[0].manifest[key]:
                    raise ValueError(
                        f"{caches / name} and {members[0].folder} differ in {key}; "
                        "mend it with: dvc repro ensemble"
                    )
            for file in ("manifest.json", *opened.manifest["files"]):
                link(opened.folder / file, temporary / name / file)
        answers = [log_softmax(cache.plain_logits("validation")) for cache in members]
        for name, own in zip(teachers, answers, strict=True):
            if not np.isfinite(own).all():
                raise ValueError(
                    f"the answers of {name} are not finite; mend it with: dvc repro teacher@{name}"
                )
        choices = {
            "uniform": uniform_weights(len(members)),
            "fitted": fit_weights(answers, labels),
        }
        _write_mean(members, choices[weights], temporary / MEAN)
        write_sealed(
            temporary / "ensemble.json",
            {
                "teachers": list(teachers),
                "caches": [cache.manifest["fingerprint"] for cache in members],
                "weights": choices,
                "weights_used": weights,
            },
        )


def mean_log_probabilities(logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The log of the members' weighted mean probability: `(N, C)` each, to `(N, C)`, float32."""
    members = torch.stack([torch.log_softmax(member.double(), dim=1) for member in logits])
    shares = torch.tensor(weights, dtype=torch.float64, device=members.device).log()
    return torch.logsumexp(members + shares[:, None, None], dim=0).float()


def standardise(values: Tensor, moments: tuple[Tensor, Tensor]) -> Tensor:
    """Values `(N, D)` less their mean `(D,)`, over their deviation `(D,)`."""
    mean, deviation = moments
    return (values - mean) / deviation


def mean_block(members: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted mean of the members' standardised values `(N, D)`; weights need no unit sum."""
    total = sum(weights)
    shares = [weight / total for weight in weights] if total else uniform_weights(len(members))
    return torch.stack([m * share for m, share in zip(members, shares, strict=True)]).sum(dim=0)


def _write_mean(members: Sequence[AnswerCache], weights: Sequence[float], folder: Path) -> None:
    """Write the mean of the members' answers as a cache of its own, view by view."""
    folder.mkdir()
    first = members[0].manifest
    # Projected blocks have as many values as the teacher has channels: there is no mean.
    shared_blocks = first["align"] == "spatial"
    blocks = sorted({block for cache in members for block in cache.blocks if shared_blocks})
    for split in PLAIN_SPLITS:
        plain = [torch.from_numpy(np.array(cache.plain_logits(split))) for cache in members]
        np.save(folder / f"{split}_logits.npy", mean_log_probabilities(plain, weights).numpy())
    if first["enabled"]:
        _write_mean_logits(members, weights, folder)
        for block in blocks:
            having = [cache for cache in members if block in cache.blocks]
            theirs = [w for cache, w in zip(members, weights, strict=True) if cache in having]
            stored = having[0].array(f"block{block}")
            values = create(folder / f"block{block}.npy", stored.dtype, stored.shape)
            for view, rows in _chunks(stored.shape):
                answers = [
                    standardise(cache.block(block, view, rows), cache.moments(block))
                    for cache in having
                ]
                values[view, rows] = mean_block(answers, theirs).numpy()
    shared = {key: first[key] for key in _MUST_AGREE}
    units = {}  # the mean is of standardised values: there is nothing more to standardise
    for block in blocks:
        size = next(len(c.moments(block)[0]) for c in members if block in c.blocks)
        units[str(block)] = {"mean": [0.0] * size, "deviation": [1.0] * size}
    names = [cache.manifest["name"] for cache in members]
    seal(
        folder,
        {"name": MEAN, **shared, "mean_of": names, "blocks": units},
    )


def _write_mean_logits(
    members: Sequence[AnswerCache], weights: Sequence[float], folder: Path
) -> None:
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
        mean = mean_log_probabilities([cache.logits(view, chunk) for cache in members], weights)
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
        self.members = {name: AnswerCache(folder / name, "ensemble") for name in self.teachers}
        self.mean = AnswerCache(folder / MEAN, "ensemble")

    def spec(self, teacher: str) -> NetworkSpec:
        """The structure of a member."""
        return NetworkSpec.read(self.members[teacher].manifest["network"])

    @property
    def weights(self) -> list[float]:
        """The weights of the members that the mean and the choice of a speaker follow."""
        weights: list[float] = self.card["weights"][self.card["weights_used"]]
        return weights

    def each_log_probabilities(self, split: Split) -> Iterator[tuple[str, Floats]]:
        """Answers `(N, C)` to the plain images of a split, one model in memory at a time.

        First the members by name; then `ensemble`, the traditional one of equal weights, and
        `ensemble_fitted`.
        """
        sums: dict[str, Floats] = {}
        for number, (name, cache) in enumerate(self.members.items()):
            answers = log_softmax(cache.plain_logits(split))
            yield name, answers
            for together, kind in (("ensemble", "uniform"), ("ensemble_fitted", "fitted")):
                part = self.card["weights"][kind][number] * np.exp(answers)
                sums[together] = sums[together] + part if together in sums else part
        for together in list(sums):
            yield together, np.log(sums.pop(together))

    def log_probabilities(self, split: Split) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """The answers of both ensembles and of the members, all in memory."""
        answers = dict(self.each_log_probabilities(split))
        together = {name: answers.pop(name) for name in ("ensemble", "ensemble_fitted")}
        return together, answers

    def block_sizes(self) -> dict[str, dict[int, int]]:
        """How many values each block of each member has."""
        return {
            name: {block: len(cache.moments(block)[0]) for block in cache.blocks}
            for name, cache in self.members.items()
        }

    def check(self, data: str, views: dict[str, Any], view_count: int) -> None:
        """Raise ValueError unless the answers are to these data and these views."""
        expected = {"data": data, "views": views, "view_count": view_count}
        for key, value in expected.items():
            if self.mean.manifest[key] != value:
                raise ValueError(
                    f"the ensemble's answers are to other {key}; mend it with: dvc repro ensemble"
                )
