"""Building the ensemble: link the caches of the chosen teachers, and write their mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from meal.core.errors import UserError
from meal.core.files import atomic_folder, link, save_array, write_sealed
from meal.ensemble.settings import EnsembleSlice
from meal.ensemble.weighting import best_weights, fit_weights
from meal.metrics import Labels, log_softmax, row_slices
from meal.targets.cache import (
    PLAIN_SPLITS,
    Array,
    TargetCache,
    create,
    moments_entry,
    record,
    seal,
    sums,
    view_file,
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

_MUST_AGREE = (
    "data", "views", "code", "image_size", "view_count", "alignment", "align", "enabled", "dtype",
    "top_k", "block_count",
)  # fmt: skip


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
    first, entries = members[0].manifest, {}
    for split in PLAIN_SPLITS:
        plain = [torch.from_numpy(np.array(cache.plain_logits(split))) for cache in members]
        mean = mean_log_probabilities(plain, weights).numpy()
        save_array(folder / f"{split}_logits.npy", mean)
    if first["enabled"]:
        entries = _write_mean_records(members, weights, folder)
    seal(
        folder,
        {
            "name": MEAN,
            **{key: first[key] for key in _MUST_AGREE},
            "mean_of": [cache.manifest["name"] for cache in members],
            "blocks": entries,
        },
    )


def _write_mean_records(
    members: Sequence[TargetCache], weights: Sequence[float], folder: Path
) -> dict[str, dict[str, list[float]]]:
    """Write the mean of the members' outputs for the views.

    Returns:
        The moments of the mean of each block: its members are hardly correlated, so its std is
        below theirs.
    """
    first, having = members[0].manifest, _having(members)
    sizes = {block: len(cache.moments(block)[0]) for block, ((_, cache), *_) in having.items()}
    kind = record(members[0].classes, first["dtype"], first["top_k"], sizes)
    images = len(members[0].records(0))
    totals = {block: np.zeros((2, size)) for block, size in sizes.items()}
    for view in range(first["view_count"]):
        mean = create(folder / view_file(view), kind, (images,))
        for rows in row_slices(images):
            outputs = [cache.outputs(view, rows) for cache in members]
            logits = mean_log_probabilities([each.logits for each in outputs], weights)
            _fill(mean[rows], logits, first["top_k"])
            for block, owners in having.items():
                values = [
                    standardise(outputs[number].block(block), cache.moments(block))
                    for number, cache in owners
                ]
                averaged = mean_block(values, [weights[number] for number, _ in owners]).numpy()
                mean[f"block{block}"][rows] = averaged
                totals[block] += sums(averaged)
        mean.flush()
    count = first["view_count"] * images
    return {str(block): moments_entry(total, count) for block, total in totals.items()}


def _having(members: Sequence[TargetCache]) -> dict[int, list[tuple[int, TargetCache]]]:
    """The members that have each block, with their numbers.

    Projected blocks have one value per channel of the teacher, so they have no mean.
    """
    if members[0].manifest["align"] != "spatial":
        return {}
    return {
        block: [(number, each) for number, each in enumerate(members) if block in each.blocks]
        for block in sorted({block for cache in members for block in cache.blocks})
    }


def _fill(records: Array, logits: Tensor, top_k: int | None) -> None:
    """Write the log of the mean probability, or only its k largest probabilities."""
    if top_k is None:
        records["logits"] = logits.numpy()
        return
    indices, probabilities = compress(logits, top_k)
    records["top_indices"], records["top_probabilities"] = indices.numpy(), probabilities.numpy()
