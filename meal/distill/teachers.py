"""The targets of a batch: the outputs of a selected teacher, cached or computed online."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from meal.core.seeds import Purpose, derive_seed, hash_integers, uniform
from meal.distill.settings import Method
from meal.metrics import row_slices
from meal.models.checkpoint import load
from meal.models.factory import with_blocks
from meal.targets.cache import NETWORK, TargetCache
from meal.targets.ensemble import MEAN, Ensemble, mean_log_probabilities, standardise
from meal.training.execution import of_whole_batch

BlockTargets = dict[int, tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Targets:
    """What the student is compared with in one step.

    Attributes:
        logits: `(N, C)`; log-probabilities if they are a mean, or only the k largest were stored.
        blocks: by block number, values `(n, D)` and the rows of the batch that they belong to: None
            for all; fewer if the teachers of some images lack the block.
        teacher: the teacher of the whole batch; None if there is no single one.
    """

    logits: Tensor
    blocks: BlockTargets
    teacher: str | None = None


@dataclass(frozen=True)
class TargetBatch:
    """What identifies a batch: view `view` of the images `rows` `(N,)`, on the CPU, at `step`.

    `pixels` `(n, C, H, W)` holds that view of this rank's part, for teachers that run online.
    """

    rows: Tensor
    view: int
    step: int
    pixels: Tensor


Outputs = tuple[Tensor, dict[int, Tensor]]  # logits (N, C) and blocks (N, D), float32


class Teacher(Protocol):
    """A source of targets: a teacher, or the mean of all."""

    def outputs(self, batch: TargetBatch, chosen: Tensor | None = None) -> Outputs:
        """Logits and blocks; blocks are standardised if the method asks for it.

        Args:
            batch: the images.
            chosen: the places in it `(n,)`, on the CPU, of those that are wanted; None for all.
        """


class CachedTeacher:
    """A teacher, or the mean of all, read from its cache."""

    def __init__(self, cache: TargetCache, method: Method, device: torch.device) -> None:
        self._cache, self._device = cache, device
        self._blocks = _compared_blocks(cache, method)
        self._of_view = method.targets == "view"

    def outputs(self, batch: TargetBatch, chosen: Tensor | None = None) -> Outputs:
        """Read the rows of the batch."""
        rows = batch.rows if chosen is None else batch.rows[chosen]
        if not self._of_view and not self._blocks:
            return self._of_images(rows), {}
        stored, blocks = self._cache.outputs(batch.view, rows.numpy()), {}
        for block, moments in self._blocks.items():
            values = stored.block(block)
            values = values if moments is None else standardise(values, moments)
            blocks[block] = _move(values, self._device)
        if self._of_view:
            return _move(stored.logits, self._device), blocks
        return self._of_images(rows), blocks

    def _of_images(self, rows: Tensor) -> Tensor:
        """The mean logits of images over all views."""
        return _move(self._means[rows], self._device).float()

    @cached_property
    def _means(self) -> Tensor:
        """Those of all images, on first use: not every teacher is ever selected."""
        name, views = self._cache.manifest["name"], self._cache.manifest["view_count"]
        print(f"averaging the logits of {name} over {views} views", flush=True)
        return mean_over_views(self._cache)


def mean_over_views(cache: TargetCache) -> Tensor:
    """The mean logits of each image over all its views, `(images, C)`.

    In the type of the cache, for all of them are in memory.
    """
    views, images = int(cache.manifest["view_count"]), len(cache.records(0))
    dtype = torch.float16 if cache.manifest["dtype"] == "float16" else torch.float32
    means = torch.empty(images, cache.classes, dtype=dtype)
    for rows in row_slices(images):
        total = cache.outputs(0, rows).logits
        for view in range(1, views):
            total += cache.outputs(view, rows).logits
        means[rows] = total / views
    return means


class OnlineTeacher:
    """A teacher that runs, in eval mode, on the pixels that the student sees."""

    def __init__(self, cache: TargetCache, method: Method, device: torch.device) -> None:
        loaded = load(cache.folder / NETWORK)
        count, align = max(cache.blocks, default=0), cache.manifest["align"]
        self._network = with_blocks(loaded.network, loaded.spec, count, align)
        self._network.to(device).eval()
        self._blocks = {
            block: None if moments is None else tuple(part.to(device) for part in moments)
            for block, moments in _compared_blocks(cache, method).items()
        }

    @torch.no_grad()
    def outputs(self, batch: TargetBatch, chosen: Tensor | None = None) -> Outputs:
        """Run the teacher."""
        logits, values = of_whole_batch(self._network, batch.pixels)
        blocks = {}
        for block, moments in self._blocks.items():
            own = values[block].float()
            blocks[block] = own if moments is None else standardise(own, (moments[0], moments[1]))
        if chosen is None:
            return logits.float(), blocks
        places = _move(chosen, logits.device)
        return logits.float()[places], {block: own[places] for block, own in blocks.items()}


class OnlineMean:
    """The mean of teachers that run online."""

    def __init__(self, members: Sequence[OnlineTeacher], weights: Sequence[float]) -> None:
        self._members, self._weights = members, weights

    def outputs(self, batch: TargetBatch, chosen: Tensor | None = None) -> Outputs:
        """Run all teachers; their blocks' mean has no moments without a cache, so none is given."""
        found = [member.outputs(batch, chosen)[0] for member in self._members]
        return mean_log_probabilities(found, self._weights), {}


class TargetReader:
    """Reads the targets of a batch from the teachers that `distill.selection` selects."""

    def __init__(self, ensemble: Ensemble, method: Method, seed: int, device: torch.device) -> None:
        """Open the teachers.

        Args:
            ensemble: the opened caches.
            method: `selection`, `blocks` and `norm`.
            seed: for the random choice of a teacher, by step and image.
            device: where targets go.
        """
        members = list(ensemble.members.values())
        self._teachers: list[Teacher]
        if ensemble.mean.manifest["enabled"]:
            caches = [ensemble.mean] if method.selection == MEAN else members
            self._teachers = [CachedTeacher(cache, method, device) for cache in caches]
        else:
            online = [OnlineTeacher(cache, method, device) for cache in members]
            self._teachers = (
                [OnlineMean(online, ensemble.weights)] if method.selection == MEAN else [*online]
            )
        self._names = list(ensemble.members)
        self._mean = method.selection == MEAN
        # A uniform draw selects the teacher in whose interval it falls.
        self._bounds = torch.tensor(ensemble.weights, dtype=torch.float64).cumsum(0)[:-1]
        self._per_image = method.selection == "random_per_image"
        self._seed, self._device = derive_seed(seed, Purpose.SELECTION), device

    def targets(self, batch: TargetBatch) -> Targets:
        """The targets of a batch."""
        if self._per_image:
            return self._targets_per_image(batch)
        number = 0 if self._mean else int(self._choose(batch.step, batch.rows.new_zeros(1)))
        logits, blocks = self._teachers[number].outputs(batch)
        every_row: BlockTargets = {block: (values, None) for block, values in blocks.items()}
        return Targets(logits, every_row, None if self._mean else self._names[number])

    def _targets_per_image(self, batch: TargetBatch) -> Targets:
        """Targets from a random teacher for each image."""
        numbers = self._choose(batch.step, batch.rows)
        logits: list[Tensor] = []
        places: list[Tensor] = []
        joined: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        for number in numbers.unique().tolist():
            chosen = (numbers == number).nonzero()[:, 0]
            own, blocks = self._teachers[number].outputs(batch, chosen)
            logits.append(own)
            places.append(_move(chosen, self._device))
            for block, values in blocks.items():
                parts, rows = joined.setdefault(block, ([], []))
                parts.append(values)
                rows.append(places[-1])
        order = torch.cat(places).argsort()
        return Targets(
            torch.cat(logits)[order],
            {block: (torch.cat(parts), torch.cat(rows)) for block, (parts, rows) in joined.items()},
        )

    def _choose(self, step: int, rows: Tensor) -> Tensor:
        """The number of the teacher for each of `rows` `(N,)` at a step, drawn by weight."""
        draws = uniform(hash_integers(self._seed, step, rows), 0)
        return torch.searchsorted(self._bounds, draws, right=True)


def _move(values: Tensor, device: torch.device) -> Tensor:
    """Copy values from the CPU to a device without waiting."""
    if device.type == "cuda":  # only pinned memory is copied without waiting
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def _compared_blocks(cache: TargetCache, method: Method) -> dict[int, tuple[Tensor, Tensor] | None]:
    """The blocks that the method uses and the teacher has, with their moments if standardised."""
    return {
        block: cache.moments(block) if method.norm == "standardise" else None
        for block in sorted(set(method.blocks) & set(cache.blocks))
    }
