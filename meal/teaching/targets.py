"""What the teachers say to a batch, and which of them says it: from caches, or running online."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from meal.config.schema import Method
from meal.data.batches import Purpose, derive_seed
from meal.data.hashing import hash_integers
from meal.nets import weights
from meal.teaching.cache import NETWORK, AnswerCache
from meal.teaching.ensemble import MEAN, Ensemble, mean_block, mean_log_probabilities, standardise


@dataclass(frozen=True)
class Targets:
    """What the teachers say to a batch.

    Attributes:
        logits: `(N, C)`; log-probabilities where the mean speaks, or the k largest are kept.
        blocks: values `(n, 16)` by block number, and the rows of the batch that they belong to:
            None where all do, fewer where the teacher of some images lacks the block.
    """

    logits: Tensor
    blocks: dict[int, tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class ViewBatch:
    """A batch as teachers may see it: `view` of images `rows` `(N,)`, a CPU tensor, at `step`.

    `pixels` `(N, C, H, W)` is that view, for teachers that run online.
    """

    rows: Tensor
    view: int
    step: int
    pixels: Tensor


Answers = tuple[Tensor, dict[int, Tensor]]  # logits (N, C) and blocks (N, 16), float32


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
        count = max(cache.blocks, default=1)
        self._network = weights.with_blocks(network, spec, count).to(device).eval()
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

    def __init__(self, members: Sequence[OnlineSpeaker]) -> None:
        self._members = members

    def answers(self, batch: ViewBatch) -> Answers:
        """Run all teachers."""
        said = [member.answers(batch) for member in self._members]
        blocks = {
            block: mean_block([blocks[block] for _, blocks in said if block in blocks])
            for block in sorted({block for _, blocks in said for block in blocks})
        }
        return mean_log_probabilities([logits for logits, _ in said]), blocks


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
            self._speakers = [OnlineMean(online)] if method.selection == MEAN else [*online]
        self._per_image = method.selection == "random_per_image"
        self._seed, self._device = derive_seed(seed, Purpose.SELECTION), device

    def targets(self, batch: ViewBatch) -> Targets:
        """The answers to a batch."""
        if not self._per_image:
            speaker = self._speakers[derive_seed(self._seed, batch.step) % len(self._speakers)]
            logits, blocks = speaker.answers(batch)
            return Targets(logits, {block: (values, None) for block, values in blocks.items()})
        chosen = hash_integers(self._seed, batch.step, batch.rows) % len(self._speakers)
        chosen = chosen.to(self._device)
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


def _wanted(cache: AnswerCache, method: Method) -> dict[int, tuple[Tensor, Tensor] | None]:
    """The blocks that the method uses and the teacher has, with their moments if standardised."""
    return {
        block: cache.moments(block) if method.norm == "standardise" else None
        for block in sorted(set(method.blocks) & set(cache.blocks))
    }
