"""From a dataset's images to the prepared data: resized, split, measured, sealed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meal.core import ranks
from meal.core.collectives import barrier
from meal.core.digests import sha256
from meal.core.files import atomic_folder, save_array, write_sealed
from meal.core.paths import named_folder
from meal.data.prepared import SPLITS, Prepared, open_prepared
from meal.datasets.raw import UNLABELLED, RawImages
from meal.datasets.registry import DATASETS
from meal.prepare.duplicates import NO_LABELS, count_duplicates
from meal.prepare.images import from_arrays, from_files
from meal.prepare.settings import PrepareSlice
from meal.prepare.statistics import compare, moments, rounded

LOGGER = logging.getLogger(__name__)


def prepare(
    config: PrepareSlice, folder: Path, workers: int = 0, work: Path | None = None
) -> Prepared:
    """Read a dataset, resize it, split off the validation images, and write it all to `folder`.

    Args:
        config: the dataset, and how it is prepared.
        folder: the output folder.
        workers: processes that decode image files.
        work: a folder in which reading files resumes; None to start anew.

    Raises:
        UserError: if the dataset cannot be read, holds broken files (all are listed), or a class
            has too few images to be split.
    """
    dataset, data = DATASETS[config.dataset], config.data
    raw = dataset.read(named_folder("data.root", data.root) if data.root else None)
    size = data.image_size or dataset.image_size
    fraction = dataset.test_fraction if data.test_fraction is None else data.test_fraction
    if isinstance(raw, RawImages):
        found = from_arrays(raw, data, data.source_size or size, fraction)
    else:
        found = from_files(raw, data, data.source_size or size, workers, fraction, work)
    channels, side = found.sums.shape[2], found.facts["side"]
    rows, labels = found.split.rows, found.split.labels
    unlabelled = rows["train"][labels[rows["train"]] == UNLABELLED]
    duplicates = count_duplicates(
        found.digests, rows if not len(unlabelled) else {**rows, NO_LABELS: unlabelled}
    )
    for pair, count in duplicates.items():
        if count:
            LOGGER.warning("%d %s images: equal images", count, pair.replace("_", " "))
    mean, std = moments(found.sums[rows["train"]], side)
    known = np.setdiff1d(rows["train"], unlabelled)
    if data.labelled != "all":
        print(
            f"data.labelled={data.labelled}: {len(known)} labels for training, "
            f"{len(rows['validation'])} for validation; {len(unlabelled)} training images are "
            "unlabelled",
            flush=True,
        )
    statistics = {"labelled": moments(found.sums[known], side)}
    if len(unlabelled):
        statistics[NO_LABELS] = moments(found.sums[unlabelled], side)
        compare(*statistics.values())
    _write(
        folder,
        {**found.arrays, **{f"{split}_labels": labels[rows[split]] for split in SPLITS}},
        {
            "dataset": config.dataset,
            "title": dataset.title,
            "note": dataset.note,
            "classes": list(raw.classes),
            "counts": {split: len(rows[split]) for split in SPLITS},
            "labels": {"train": len(known), "validation": len(rows["validation"])},
            "shape": [size or side, size or side, channels],
            "mean": rounded(mean),
            "std": rounded(std),
            "statistics": {
                name: {"mean": rounded(each[0]), "std": rounded(each[1])}
                for name, each in statistics.items()
            },
            "duplicates": duplicates,
            **found.facts,
        },
    )
    return open_prepared(folder, data.root, workers)


def _write(folder: Path, arrays: Mapping[str, NDArray[Any]], manifest: Mapping[str, Any]) -> None:
    """Write arrays and the manifest, with their checksums; the other ranks wait for the first."""
    if ranks.is_first():
        with atomic_folder(folder) as temporary:
            for name, array in arrays.items():
                save_array(temporary / f"{name}.npy", array)
            files = {path.name: sha256(path) for path in sorted(temporary.glob("*.npy"))}
            write_sealed(temporary / "manifest.json", {**manifest, "files": files})
    barrier()
