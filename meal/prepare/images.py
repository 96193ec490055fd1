"""The images of a dataset, from arrays or files: resized and split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from meal.core.device import total_memory
from meal.core.errors import UserError
from meal.data.decoding import decode, read_image
from meal.data.prepared import SPLITS
from meal.datasets.raw import UNLABELLED, RawFiles, RawImages
from meal.datasets.settings import LARGEST, SMALLEST, Data
from meal.prepare.duplicates import NO_LABELS, pixel_digests
from meal.prepare.scanning import Scan, scan
from meal.prepare.splitting import Rows, SplitRows, check_classes, split_images
from meal.prepare.statistics import sums

MOST_IN_MEMORY = 2**30  # bytes of pixels; larger datasets stay files (data.store: auto)


@dataclass(frozen=True)
class Found:
    """The images of a dataset, split.

    Attributes:
        split: the images of each split, and their labels.
        arrays: what is written, by file name without `.npy`.
        digests: a checksum of each image's prepared pixels `(N, 32)`.
        sums: of each image's values and of their squares, by channel `(N, 2, C)`.
        facts: further entries of the manifest.
    """

    split: SplitRows
    arrays: Mapping[str, NDArray[Any]]
    digests: NDArray[np.uint8]
    sums: NDArray[np.int64]
    facts: dict[str, Any]


def from_arrays(raw: RawImages, data: Data, side: int | None, test_fraction: float) -> Found:
    """Split a dataset of arrays."""
    images, labels = [raw.train_images], [raw.train_labels]
    if raw.extra_images is not None:
        known = raw.extra_labels if data.labelled == "all" else None
        images.append(raw.extra_images)
        labels.append(np.full(len(raw.extra_images), UNLABELLED) if known is None else known)
    given = {"train": np.flatnonzero(np.concatenate(labels) != UNLABELLED)}
    unlabelled = np.flatnonzero(np.concatenate(labels) == UNLABELLED)
    if raw.test_images is not None and raw.test_labels is not None:
        start = sum(map(len, labels))
        given["test"] = np.arange(start, start + len(raw.test_labels))
        images.append(raw.test_images)
        labels.append(raw.test_labels)
    split = split_images(
        given, unlabelled, np.concatenate(labels), data, test_fraction, raw.classes
    )
    native = raw.train_images.shape[1:3]
    resized = [_resize(part, side) for part in images]
    return Found(
        split,
        arrays={f"{name}_images": _gather(resized, rows) for name, rows in split.rows.items()},
        digests=np.concatenate([pixel_digests(part) for part in resized]),
        sums=np.concatenate([sums(part) for part in resized]),
        facts={
            "store": "array",
            "side": int(resized[0].shape[1]),
            "sizes": {"smallest": list(native[::-1]), "largest": list(native[::-1])},
            "ignored": 0,
            "skipped": [],
        },
    )


def _gather(parts: Sequence[NDArray[np.uint8]], rows: Rows) -> NDArray[np.uint8]:
    """The rows of several arrays, numbered as if they were one; no copy of all of them is made."""
    starts = np.cumsum([0, *map(len, parts)])
    found = [
        part[rows[(rows >= start) & (rows < stop)] - start]
        for part, start, stop in zip(parts, starts[:-1], starts[1:], strict=True)
    ]
    filled = [part for part in found if len(part)]
    return filled[0] if len(filled) == 1 else np.concatenate(filled)


def from_files(
    raw: RawFiles,
    data: Data,
    size: int | None,
    workers: int,
    test_fraction: float,
    work: Path | None,
) -> Found:
    """Read and split a dataset of image files: kept as pixels or as an index."""
    listings = (raw.train, raw.validation, raw.test, raw.unlabelled)
    paths = [path for listing in listings if listing is not None for path in listing.paths]
    side = size or _own_side(raw.root, paths)
    as_array = _fits_in_memory(data, len(paths), side, raw.ignored)
    found = scan(raw.root, paths, side, as_array, workers, work)
    _check_files(found, size, data.skip_broken)
    intact = np.array([row not in found.faults for row in range(len(paths))])
    given, unlabelled, labels = _intact_rows(raw, intact)
    split = split_images(given, unlabelled, labels, data, test_fraction, raw.classes)
    rows = split.rows
    channels = 1 if found.grey[intact].all() else 3
    extremes = found.sizes[intact][np.argsort(found.sizes[intact].prod(axis=1), kind="stable")]
    arrays: dict[str, NDArray[Any]]
    if as_array:
        arrays = {
            f"{name}_images": np.ascontiguousarray(found.pixels[rows[name]][..., :channels])
            for name in SPLITS
        }
    else:
        arrays = {f"{name}_index": found.index(rows[name]) for name in SPLITS}
    return Found(
        split,
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
    memory = total_memory(torch.device("cpu"))
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


def _intact_rows(raw: RawFiles, intact: NDArray[np.bool_]) -> tuple[dict[str, Rows], Rows, Rows]:
    """The intact images of the splits a dataset defines, those without labels, and all labels."""
    listings = {
        "train": raw.train,
        "validation": raw.validation,
        "test": raw.test,
        NO_LABELS: raw.unlabelled,
    }
    rows: dict[str, Rows] = {}
    labels: list[Rows] = []
    start = 0
    for name, listing in listings.items():
        if listing is None:
            continue
        stop = start + len(listing.paths)
        rows[name] = np.arange(start, stop)[intact[start:stop]]
        labels.append(np.array(listing.labels, np.int64))
        if name != NO_LABELS:
            check_classes(name, raw.classes, labels[-1], labels[-1][intact[start:stop]])
        elif not len(rows[name]):
            raise UserError(f"no intact image is left in {name}")
        start = stop
    unlabelled = rows.pop(NO_LABELS, np.empty(0, np.int64))
    return rows, unlabelled, np.concatenate(labels)


def _own_side(root: Path, paths: Sequence[str]) -> int:
    """The side length of the images if none is configured: that of the first intact image."""
    for path in paths:
        try:
            width, height = decode(read_image(root / path)).size
        except (OSError, UserError):
            continue  # all broken files are listed later
        if width != height or not SMALLEST <= width <= LARGEST:
            raise UserError(
                f"data.image_size=auto: {root / path} has {width}x{height} pixels, but networks "
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
            f"data.image_size=auto: the images have {len(sizes)} different sizes, from "
            f"{sizes[0][0]}x{sizes[0][1]} to {sizes[-1][0]}x{sizes[-1][1]} pixels; set "
            "data.image_size"
        )


def _resize(images: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """Images `(N, H, W, C)` at `size` x `size` pixels, bilinear with antialiasing."""
    if size is None or images.shape[1:3] == (size, size):
        return images
    resized = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for start in range(0, len(images), 1024):  # bounds memory
        planes = torch.from_numpy(images[start : start + 1024]).permute(0, 3, 1, 2).float()
        planes = torch.nn.functional.interpolate(
            planes, size=(size, size), mode="bilinear", antialias=True, align_corners=False
        )
        pixels = planes.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        resized[start : start + 1024] = pixels.numpy()
    return resized
