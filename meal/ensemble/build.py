"""Building the ensemble: link the caches of the chosen teachers, and write their mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from meal.core.errors import UserError
from meal.core.files import atomic_folder, link, save_array, write_sealed
from meal.ensemble.settings import EnsembleSlice
from meal.ensemble.weighting import best_weights, fit_weights
from meal.metrics import Labels, log_softmax
from meal.targets.cache import (
    PLAIN_SPLITS,
    TargetCache,
    create,
    logits_layout,
    moments_entry,
    seal,
    sums,
)
from meal.targets.ensemble import (
    FIX,
    MEAN,
    mean_block,
    mean_log_probabilities,
    standardise,
    uniform_weights,
)
from meal.targets.topk import compress

_ROWS = 8192  # images averaged at once, to bound memory
_MUST_AGREE = ("data", "views", "view_count", "alignment", "align", "enabled", "dtype", "top_k")


def build_ensemble(config: EnsembleSlice, caches: Path, folder: Path, labels: Labels) -> None:
    """Link the caches of the chosen teachers into `folder` and add their mean.

    Args:
        config: the teachers, and the weights of the mean.
        caches: the folder of all caches.
        folder: the output.
        labels: of the validation images, on which weights are fitted.

    Raises:
        UserError: if a cache is missing or damaged, is for different views or data than the rest,
            or holds logits that are not finite.
    """
    with atomic_folder(folder) as temporary:
        members = _open_members(config.teachers, caches)
        for name, cache in members.items():
            for file in ("manifest.json", *cache.manifest["files"]):
                link(cache.folder / file, temporary / name / file)
        log_probabilities = [log_softmax(c.plain_logits("validation")) for c in members.values()]
        for name, values in zip(members, log_probabilities, strict=True):
            if not np.isfinite(values).all():
                raise UserError(
                    f"the logits of {name} are not finite; fix: dvc repro teacher@{name}"
                )
        weights = {
            "uniform": uniform_weights(len(members)),
            "fitted": fit_weights(log_probabilities, labels),
            "best": best_weights(log_probabilities, labels),
        }
        _write_mean(list(members.values()), weights[config.weights], temporary / MEAN)
        write_sealed(
            temporary / "ensemble.json",
            {
                "teachers": config.teachers,
                "caches": [cache.manifest["fingerprint"] for cache in members.values()],
                "weights": weights,
                "weights_used": config.weights,
            },
        )


def _open_members(teachers: Sequence[str], caches: Path) -> dict[str, TargetCache]:
    """The caches of the teachers, by name, after checking that they fit together."""
    members = {name: TargetCache(caches / name, f"cache@{name}") for name in teachers}
    first = members[teachers[0]]
    for cache in members.values():
        for key in _MUST_AGREE:
            if cache.manifest.get(key) != first.manifest.get(key):
                raise UserError(f"{cache.folder} and {first.folder} differ in {key}; fix: {FIX}")
    return members


def _write_mean(members: Sequence[TargetCache], weights: Sequence[float], folder: Path) -> None:
    """Write the mean of the members as another cache."""
    folder.mkdir()
    first = members[0].manifest
    # Projected blocks have one value per channel of the teacher, so they have no mean.
    averaged, entries = first["align"] == "spatial", {}
    blocks = sorted({block for cache in members for block in cache.blocks if averaged})
    for split in PLAIN_SPLITS:
        plain = [torch.from_numpy(np.array(cache.plain_logits(split))) for cache in members]
        mean = mean_log_probabilities(plain, weights).numpy()
        save_array(folder / f"{split}_logits.npy", mean)
    if first["enabled"]:
        _write_mean_logits(members, weights, folder)
        for block in blocks:
            entries[str(block)] = _write_mean_block(block, members, weights, folder)
    seal(
        folder,
        {
            "name": MEAN,
            **{key: first[key] for key in _MUST_AGREE},
            "mean_of": [cache.manifest["name"] for cache in members],
            "blocks": entries,
        },
    )


def _write_mean_logits(
    members: Sequence[TargetCache], weights: Sequence[float], folder: Path
) -> None:
    """Write the log of the mean probability, or only its k largest probabilities."""
    manifest = members[0].manifest
    k, rows = manifest["top_k"], (manifest["view_count"], _images(members[0]))
    layout = logits_layout(rows, members[0].classes, manifest["dtype"], k)
    arrays = [create(folder / f"{name}.npy", *kind) for name, kind in layout.items()]
    for view, chunk in _chunks(rows):
        mean = mean_log_probabilities([cache.logits(view, chunk) for cache in members], weights)
        parts = (mean,) if k is None else compress(mean, k)
        for array, values in zip(arrays, parts, strict=True):
            array[view, chunk] = values.numpy()


def _write_mean_block(
    block: int, members: Sequence[TargetCache], weights: Sequence[float], folder: Path
) -> dict[str, list[float]]:
    """Write the mean of a block's standardised values over the members that have it.

    Returns:
        The moments of the mean: its members are hardly correlated, so its std is below theirs.
    """
    having = [index for index, cache in enumerate(members) if block in cache.blocks]
    stored = members[having[0]].array(f"block{block}")
    mean = create(folder / f"block{block}.npy", stored.dtype, stored.shape)
    totals = np.zeros((2, stored.shape[-1]))
    for view, rows in _chunks(stored.shape):
        values = [
            standardise(members[index].block(block, view, rows), members[index].moments(block))
            for index in having
        ]
        averaged = mean_block(values, [weights[index] for index in having]).numpy()
        mean[view, rows] = averaged
        totals += sums(averaged)
    return moments_entry(totals, stored.shape[0] * stored.shape[1])


def _images(cache: TargetCache) -> int:
    """The number of training images of a cache."""
    name = "top_indices" if cache.manifest["top_k"] else "logits"
    return int(cache.array(name).shape[1])


def _chunks(shape: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Views, and the spans of images that are averaged at once."""
    for view in range(shape[0]):
        for start in range(0, shape[1], _ROWS):
            yield view, slice(start, start + _ROWS)
