"""What the teachers say to a batch, and which of them says it: from caches, or running online."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from meal.config.schema import Method
from meal.data.batches import Purpose, derive_seed
from meal.data.hashing import hash_integers, uniform
from meal.nets import weights
from meal.teaching.cache import NETWORK, AnswerCache
from meal.teaching.ensemble import MEAN, Ensemble, mean_block, mean_log_probabilities, standardise

Blocks = dict[int, tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Targets:
    """What the teachers say to a batch.

    Attributes:
        speaker: the name of the teacher that speaks; None where it is not one.
        logits: `(N, C)`; log-probabilities where the mean speaks, or the k largest are kept.
        blocks: values `(n, D)` by block number, and the rows of the batch that they belong to:
            None where all do, fewer where the teacher of some images lacks the block.
    """

    logits: Tensor
    blocks: Blocks
    speaker: str | None = None


@dataclass(frozen=True)
class ViewBatch:
    """A batch as teachers may see it: `view` of images `rows` `(N,)`, a CPU tensor, at `step`.

    `pixels` `(N, C, H, W)` is that view, for teachers that run online.
    """

    rows: Tensor
    view: int
    step: int
    pixels: Tensor


Answers = tuple[Tensor, dict[int, Tensor]]  # logits (N, C) and blocks (N, D), float32


class Speaker(Protocol):
    """One voice: a teacher, or the mean of all."""

    def answers(self, batch: ViewBatch) -> Answers:
        """Logits and blocks for a batch, standardised if the method says so."""


class CachedSpeaker:
    """A voice read from a cache."""

    def __init__(self, cache: AnswerCache, method: Method, device: torch.device) -> None:
        self._cache, self._device = cache, device
        self._blocks = _wanted(cache, method)

    def answers(self, batch: ViewBatch) -> Answers:
        """Read the rows of the batch."""
        rows = batch.rows.numpy()
        blocks = {}
        for block, moments in self._blocks.items():
            values = self._cache.block(block, batch.view, rows)
            blocks[block] = self._to(values if moments is None else standardise(values, moments))
        return self._to(self._cache.logits(batch.view, rows)), blocks

    def _to(self, values: Tensor) -> Tensor:
        return values.to(self._device, non_blocking=True)


class OnlineSpeaker:
    """A teacher that runs, in eval mode, on the pixels that the student sees."""

    def __init__(self, cache: AnswerCache, method: Method, device: torch.device) -> None:
        spec, network = weights.load(cache.folder / NETWORK)
        count = max(cache.blocks, default=0)
        self._network = weights.with_blocks(network, spec, count, cache.manifest["align"])
        self._network.to(device).eval()
        self._blocks = {
            block: None if moments is None else tuple(part.to(device) for part in moments)
            for block, moments in _wanted(cache, method).items()
        }

    @torch.no_grad()
    def answers(self, batch: ViewBatch) -> Answers:
        """Run the teacher."""
        logits, values = self._network(batch.pixels)
        blocks = {}
        for block, moments in self._blocks.items():
            own = values[block].float()
            blocks[block] = own if moments is None else standardise(own, (moments[0], moments[1]))
        return logits.float(), blocks


class OnlineMean:
    """The mean of teachers that run."""

    def __init__(self, members: Sequence[OnlineSpeaker], weights: Sequence[float]) -> None:
        self._members, self._weights = members, weights

    def answers(self, batch: ViewBatch) -> Answers:
        """Run all teachers."""
        said = [member.answers(batch) for member in self._members]
        joined = {}
        for block in sorted({block for _, blocks in said for block in blocks}):
            having = [index for index, (_, blocks) in enumerate(said) if block in blocks]
            joined[block] = mean_block(
                [said[index][1][block] for index in having],
                [self._weights[index] for index in having],
            )
        return mean_log_probabilities([logits for logits, _ in said], self._weights), joined


class TargetReader:
    """Gives the targets of a batch, by the method's `selection`."""

    def __init__(self, ensemble: Ensemble, method: Method, seed: int, device: torch.device) -> None:
        """Choose who speaks.

        Args:
            ensemble: the opened caches.
            method: its `selection` says who speaks, its `blocks` and `norm` what is read.
            seed: decides the random choices, by step and image.
            device: where targets go.
        """
        members = list(ensemble.members.values())
        self._speakers: list[Speaker]
        if ensemble.mean.manifest["enabled"]:
            voices = [ensemble.mean] if method.selection == MEAN else members
            self._speakers = [CachedSpeaker(cache, method, device) for cache in voices]
        else:
            online = [OnlineSpeaker(cache, method, device) for cache in members]
            self._speakers = (
                [OnlineMean(online, ensemble.weights)] if method.selection == MEAN else [*online]
            )
        self._names = list(ensemble.members)
        self._mean = method.selection == MEAN
        # Equal weights or fitted ones: a draw from [0, 1) falls into a member's share.
        self._bounds = torch.tensor(ensemble.weights, dtype=torch.float64).cumsum(0)[:-1]
        self._per_image = method.selection == "random_per_image"
        self._seed, self._device = derive_seed(seed, Purpose.SELECTION), device

    def targets(self, batch: ViewBatch) -> Targets:
        """The answers to a batch."""
        if not self._per_image:
            number = 0 if self._mean else int(self._choose(batch.step, batch.rows.new_zeros(1)))
            logits, blocks = self._speakers[number].answers(batch)
            whole: Blocks = {block: (values, None) for block, values in blocks.items()}
            return Targets(logits, whole, None if self._mean else self._names[number])
        chosen = self._choose(batch.step, batch.rows).to(self._device)
        said = [speaker.answers(batch) for speaker in self._speakers]
        logits = said[0][0].clone()
        joined: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        for index, (own, blocks) in enumerate(said):
            mine = (chosen == index).nonzero()[:, 0]
            logits[mine] = own[mine]
            for block, values in blocks.items() if len(mine) else ():
                parts, rows = joined.setdefault(block, ([], []))
                parts.append(values[mine])
                rows.append(mine)
        return Targets(
            logits,
            {block: (torch.cat(parts), torch.cat(rows)) for block, (parts, rows) in joined.items()},
        )

    def _choose(self, step: int, rows: Tensor) -> Tensor:
        """Who speaks to each of `rows` `(N,)` at a step, by the members' weights."""
        draws = uniform(hash_integers(self._seed, step, rows), 0)
        return torch.searchsorted(self._bounds, draws, right=True)


def _wanted(cache: AnswerCache, method: Method) -> dict[int, tuple[Tensor, Tensor] | None]:
    """The blocks that the method uses and the teacher has, with their moments if standardised."""
    return {
        block: cache.moments(block) if method.norm == "standardise" else None
        for block in sorted(set(method.blocks) & set(cache.blocks))
    }
