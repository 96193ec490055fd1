"""The ensemble: the caches of the chosen teachers, and how their outputs are averaged.

Its folder, written by the stage `ensemble`, holds a cache for each teacher, and `mean`, a cache of
the same format with the log of the mean probability and the mean of the standardised blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meal.core.errors import UserError
from meal.core.files import read_sealed
from meal.data.prepared import Split
from meal.metrics import Floats, log_softmax, row_slices
from meal.targets.cache import TargetCache

MEAN = "mean"
UNIFORM, FITTED = "ensemble", "ensemble_fitted"  # the two ensembles in metrics
FIX = "dvc repro ensemble"


def mean_log_probabilities(logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The log of the weighted mean probability: from logits `(N, C)` each to `(N, C)`, float32."""
    members = torch.stack([torch.log_softmax(member.double(), dim=1) for member in logits])
    log_weights = torch.tensor(weights, dtype=torch.float64, device=members.device).log()
    return torch.logsumexp(members + log_weights[:, None, None], dim=0).float()


def standardise(values: Tensor, moments: tuple[Tensor, Tensor]) -> Tensor:
    """Values `(N, D)` minus their mean `(D,)`, divided by their std `(D,)`."""
    mean, std = moments
    return (values - mean) / std


def uniform_weights(members: int) -> list[float]:
    """The equal weights of the traditional ensemble."""
    return [1.0 / members] * members


def mean_block(members: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted mean of standardised values `(N, D)`; weights need not sum to one.

    If all weights are 0, the result is the unweighted mean.
    """
    total = sum(weights)
    scaled = [weight / total for weight in weights] if total else uniform_weights(len(members))
    return torch.stack([m * weight for m, weight in zip(members, scaled, strict=True)]).sum(dim=0)


@dataclass(frozen=True)
class SplitOutputs:
    """Log-probabilities `(N, C)` for the plain images of a split.

    Attributes:
        ensembles: of `ensemble` and `ensemble_fitted`.
        teachers: by name.
    """

    ensembles: dict[str, Floats]
    teachers: dict[str, Floats]


class Ensemble:
    """The output of the stage `ensemble`, opened for reading."""

    def __init__(self, folder: Path) -> None:
        """Open the folder; raise UserError if a manifest is missing or damaged."""
        self.card = read_sealed(folder / "ensemble.json", FIX)
        if not {"teachers", "weights", "weights_used"} <= self.card.keys():
            raise UserError(f"{folder / 'ensemble.json'} does not describe an ensemble; fix: {FIX}")
        self.folder = folder
        self.teachers: list[str] = self.card["teachers"]
        self.members = {name: TargetCache(folder / name, "ensemble") for name in self.teachers}
        self.mean = TargetCache(folder / MEAN, "ensemble")

    def network_card(self, teacher: str) -> dict[str, Any]:
        """The specification of a teacher's network, as read from JSON."""
        return dict(self.members[teacher].manifest["network"])

    @property
    def weights(self) -> list[float]:
        """The weights of the teachers in the mean, and in the random choice of a teacher."""
        weights: list[float] = self.card["weights"][self.card["weights_used"]]
        return weights

    def each_log_probabilities(self, split: Split) -> Iterator[tuple[str, Floats]]:
        """Log-probabilities `(N, C)` for the plain images of a split, one model at a time.

        The teachers come first, by name; then `ensemble`, the traditional one with uniform
        weights, and `ensemble_fitted`. Only one teacher is in memory at a time.
        """
        sums: dict[str, Floats] = {}
        for number, (name, cache) in enumerate(self.members.items()):
            log_probabilities = log_softmax(cache.plain_logits(split))
            yield name, log_probabilities
            for ensemble, kind in ((UNIFORM, "uniform"), (FITTED, "fitted")):
                total = sums.setdefault(ensemble, np.zeros_like(log_probabilities))
                weight = self.card["weights"][kind][number]
                for rows in row_slices(len(total)):
                    total[rows] += weight * np.exp(log_probabilities[rows])
        for ensemble in list(sums):
            total = sums.pop(ensemble)
            yield ensemble, np.log(total, out=total)

    def log_probabilities(self, split: Split) -> SplitOutputs:
        """The log-probabilities of both ensembles and of all teachers, in memory at once."""
        found = dict(self.each_log_probabilities(split))
        return SplitOutputs({name: found.pop(name) for name in (UNIFORM, FITTED)}, found)

    def block_sizes(self) -> dict[str, dict[int, int]]:
        """For each teacher, the number of values in each of its blocks."""
        return {
            name: {block: len(cache.moments(block)[0]) for block in cache.blocks}
            for name, cache in self.members.items()
        }

    def check(self, data: str, views: dict[str, Any], view_count: int) -> None:
        """Raise UserError unless the cached outputs are for this data and these views."""
        expected = {"data": data, "views": views, "view_count": view_count}
        for key, value in expected.items():
            if self.mean.manifest[key] != value:
                raise UserError(
                    f"the ensemble's cached outputs are stale: {key} changed; fix: {FIX}"
                )
