"""From a dataset's images to the prepared data: resized, split, measured, sealed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from meal.core.digests import sha256
from meal.core.errors import UserError
from meal.core.files import atomic_folder, save_array, write_sealed
from meal.core.paths import named_folder
from meal.data.decoding import decode, read_image
from meal.data.prepared import SPLITS, Prepared, open_prepared
from meal.datasets.raw import Listing, RawFiles, RawImages
from meal.datasets.registry import DATASETS
from meal.datasets.settings import LARGEST, SMALLEST, Data
from meal.prepare.duplicates import count_duplicates, pixel_digests
from meal.prepare.scanning import Scan, scan
from meal.prepare.settings import PrepareSlice
from meal.prepare.splitting import Rows, check_classes, split_by_class

LOGGER = logging.getLogger(__name__)

MOST_IN_MEMORY = 2**30  # bytes of pixels; larger datasets stay files (data.store: auto)


@dataclass(frozen=True)
class _Found:
    """The images of a dataset, split.

    Attributes:
        labels: of all images `(N,)`.
        rows: the images of each split, in ascending order.
        arrays: what is written, by file name without `.npy`.
        digests: a checksum of each image's prepared pixels `(N, 32)`.
        sums: of each image's values and of their squares, by channel `(N, 2, C)`.
        facts: further entries of the manifest.
    """

    labels: Rows
    rows: Mapping[str, Rows]
    arrays: Mapping[str, NDArray[Any]]
    digests: NDArray[np.uint8]
    sums: NDArray[np.int64]
    facts: dict[str, Any]


def prepare(config: PrepareSlice, folder: Path, workers: int = 0) -> Prepared:
    """Read a dataset, resize it, split off the validation images, and write it all to `folder`.

    Raises:
        UserError: if the dataset cannot be read, holds broken files (all are listed), or a class
            has too few images to be split.
    """
    dataset, data = DATASETS[config.dataset], config.data
    raw = dataset.read(named_folder("data.root", data.root) if data.root else None)
    size = data.image_size or dataset.image_size
    if isinstance(raw, RawImages):
        found = _from_arrays(raw, data, data.source_size or size)
    else:
        found = _from_files(raw, data, data.source_size or size, workers)
    channels, side = found.sums.shape[2], found.facts["side"]
    duplicates = count_duplicates(found.digests, found.rows)
    for pair, count in duplicates.items():
        if count:
            LOGGER.warning("%d %s images: equal images", count, pair.replace("_", " "))
    # Integers sum exactly, in any order of the images.
    train = found.sums[found.rows["train"]].sum(axis=0).astype(np.float64)
    mean, square = train / (len(found.rows["train"]) * side**2)
    std = np.sqrt(np.maximum(square - mean**2, 1e-7))
    with atomic_folder(folder) as temporary:
        for name, array in found.arrays.items():
            save_array(temporary / f"{name}.npy", array)
        for split in SPLITS:
            save_array(temporary / f"{split}_labels.npy", found.labels[found.rows[split]])
        files = {path.name: sha256(path) for path in sorted(temporary.glob("*.npy"))}
        write_sealed(
            temporary / "manifest.json",
            {
                "dataset": config.dataset,
                "title": dataset.title,
                "note": dataset.note,
                "classes": list(raw.classes),
                "counts": {split: len(found.rows[split]) for split in SPLITS},
                "shape": [size or side, size or side, channels],
                "mean": [round(float(value) / 255, 6) for value in mean],
                "deviation": [round(float(value) / 255, 6) for value in std],
                "duplicates": duplicates,
                **found.facts,
                "files": files,
            },
        )
    return open_prepared(folder, data.root, workers)


def _from_arrays(raw: RawImages, data: Data, side: int | None) -> _Found:
    """Split a dataset of arrays, which has its own test set."""
    fraction, seed = data.validation_fraction, data.split_seed
    train, validation = split_by_class(
        raw.train_labels, "validation_fraction", fraction, seed, raw.classes
    )
    count = len(raw.train_labels)
    rows = {
        "train": train,
        "validation": validation,
        "test": np.arange(count, count + len(raw.test_labels)),
    }
    native = raw.train_images.shape[1:3]
    resized = [_resize(images, side) for images in (raw.train_images, raw.test_images)]
    return _Found(
        labels=np.concatenate([raw.train_labels, raw.test_labels]),
        rows=rows,
        arrays={
            "train_images": resized[0][train],
            "validation_images": resized[0][validation],
            "test_images": resized[1],
        },
        digests=np.concatenate([pixel_digests(images) for images in resized]),
        sums=np.concatenate([_sums(images) for images in resized]),
        facts={
            "store": "array",
            "side": int(resized[0].shape[1]),
            "sizes": {"smallest": list(native[::-1]), "largest": list(native[::-1])},
            "ignored": 0,
            "skipped": [],
        },
    )


def _from_files(raw: RawFiles, data: Data, size: int | None, workers: int) -> _Found:
    """Read and split a dataset of image files: kept as pixels or as an index."""
    listings = {"train": raw.train, "validation": raw.validation, "test": raw.test}
    given = {split: listing for split, listing in listings.items() if listing is not None}
    paths = [path for listing in given.values() for path in listing.paths]
    side = size or _own_side(raw.root, paths)
    as_array = _fits_in_memory(data, len(paths), side, raw.ignored)
    found = scan(raw.root, paths, side, as_array, workers)
    _check_files(found, size, data.skip_broken)
    intact = np.array([row not in found.faults for row in range(len(paths))])
    labels = np.array([label for listing in given.values() for label in listing.labels])
    rows = _split_files(given, labels, intact, data, raw.classes)
    channels = 1 if found.grey[intact].all() else 3
    extremes = found.sizes[intact][np.argsort(found.sizes[intact].prod(axis=1), kind="stable")]
    arrays: dict[str, NDArray[Any]]
    if as_array:
        arrays = {
            f"{split}_images": np.ascontiguousarray(found.pixels[rows[split]][..., :channels])
            for split in SPLITS
        }
    else:
        arrays = {f"{split}_index": found.index(rows[split]) for split in SPLITS}
    return _Found(
        labels=labels.astype(np.int64),
        rows=rows,
        arrays=arrays,
        digests=found.pixel_digests,
        sums=found.sums[..., :channels],
        facts={
            "store": "array" if as_array else "index",
            "side": side,
            "sizes": {"smallest": extremes[0].tolist(), "largest": extremes[-1].tolist()},
            "ignored": raw.ignored,
            "skipped": [
                {"path": found.name(row), "reason": reason}
                for row, reason in sorted(found.faults.items())
            ],
        },
    )


def _fits_in_memory(data: Data, images: int, side: int, ignored: int) -> bool:
    """Decide by `data.store` and size whether the pixels are kept as an array; print the choice."""
    size = images * side**2 * 3
    as_array = data.store == "array" or (data.store == "auto" and size <= MOST_IN_MEMORY)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if as_array and size > memory / 2:
        raise UserError(
            f"data.store={data.store!r}: {size / 2**30:.0f} GiB of pixels do not fit in half of "
            f"{memory / 2**30:.0f} GiB of memory; allowed: index, or a smaller data.image_size"
        )
    print(
        f"{images} images of {side}x{side} pixels, {size / 2**20:.0f} MiB: "
        + ("kept as one array" if as_array else "kept as an index of files, decoded when read")
        + (f" ({ignored} other files are ignored)" if ignored else ""),
        flush=True,
    )
    return as_array


def _split_files(
    given: Mapping[str, Listing],
    labels: Rows,
    intact: NDArray[np.bool_],
    data: Data,
    classes: Sequence[str],
) -> dict[str, Rows]:
    """The intact images of each split, whether the dataset defines it or it is split off."""
    rows: dict[str, Rows] = {}
    start = 0
    for split, listing in given.items():
        stop = start + len(listing.paths)
        rows[split] = np.arange(start, stop)[intact[start:stop]]
        check_classes(split, classes, labels[start:stop], labels[rows[split]])
        start = stop
    # The test split has a fixed seed: `data.split_seed` must not change its images.
    for split, fraction, seed in (
        ("test", "test_fraction", 0),
        ("validation", "validation_fraction", data.split_seed),
    ):
        if split not in rows:
            own = labels[rows["train"]]
            left, taken = split_by_class(own, fraction, getattr(data, fraction), seed, classes)
            rows["train"], rows[split] = rows["train"][left], rows["train"][taken]
    return rows


def _own_side(root: Path, paths: Sequence[str]) -> int:
    """The side length of the images if none is configured: that of the first intact image."""
    for path in paths:
        try:
            width, height = decode(read_image(root / path)).size
        except (OSError, UserError):
            continue  # all broken files are listed later
        if width != height or not SMALLEST <= width <= LARGEST:
            raise UserError(
                f"data.image_size=None: {root / path} has {width}x{height} pixels, but networks "
                f"see squares of {SMALLEST} to {LARGEST}; set data.image_size"
            )
        return width
    return SMALLEST


def _check_files(found: Scan, size: int | None, skip_broken: bool) -> None:
    """Raise UserError for broken files, listing them all, or for images of different sizes."""
    lines = [f"{found.name(row)}: {reason}" for row, reason in sorted(found.faults.items())]
    if lines and not skip_broken:
        raise UserError(
            f"{len(lines)} of {len(found.paths)} files are broken; fix or remove them, or set "
            "data.skip_broken: true to skip them\n" + "\n".join(lines)
        )
    for line in lines:
        print(f"skipped: {line}", flush=True)
    sizes = np.unique(np.delete(found.sizes, list(found.faults), axis=0), axis=0)
    if size is None and len(sizes) > 1:
        raise UserError(
            f"data.image_size=None: the images have {len(sizes)} different sizes, from "
            f"{sizes[0][0]}x{sizes[0][1]} to {sizes[-1][0]}x{sizes[-1][1]} pixels; set "
            "data.image_size"
        )


def _sums(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Sums `(N, 2, C)` of the values in images `(N, H, W, C)`, and of their squares."""
    sums = np.empty((len(images), 2, images.shape[3]), np.int64)
    for start in range(0, len(images), 1024):  # bounds memory
        values = images[start : start + 1024].astype(np.int64)
        sums[start : start + 1024] = np.stack([values.sum((1, 2)), (values**2).sum((1, 2))], axis=1)
    return sums


def _resize(images: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """Images `(N, H, W, C)` at `size` x `size` pixels, bilinear with antialiasing."""
    if size is None or images.shape[1:3] == (size, size):
        return images
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    planes = torch.nn.functional.interpolate(
        planes, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    resized = planes.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return np.asarray(resized.numpy())
