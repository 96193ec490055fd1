"""From a source's images to the prepared data: resized, split, measured, sealed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from meal.config.fields import LARGEST, SMALLEST
from meal.config.schema import Data
from meal.config.slices import PrepareSlice
from meal.data.decoding import decode, read_image
from meal.data.duplicates import count_duplicates, pixel_digests
from meal.data.prepared import SPLITS, Prepared, open_prepared
from meal.data.scanning import Scan, scan
from meal.data.sources import SOURCES
from meal.data.sources.raw import RawFiles, RawImages
from meal.data.splitting import Rows, check_classes, split_by_class
from meal.files import atomic_folder, named_folder, sha256, write_sealed

MOST_IN_MEMORY = 2**30  # bytes of pixels; past these, files stay where they are (data.store: auto)


@dataclass(frozen=True)
class _Found:
    """A source's images, split.

    Attributes:
        labels: of all images `(N,)`.
        rows: the images of each split, in rising order.
        arrays: what is written, by the end of its name and split.
        digests: a checksum an image `(N, 32)`, of pixels or of the file.
        sums: of the values of each image and of their squares, by channel `(N, 2, C)`.
        facts: what the manifest says beside.
    """

    labels: Rows
    rows: Mapping[str, Rows]
    arrays: Mapping[str, NDArray[Any]]
    digests: NDArray[np.uint8]
    sums: NDArray[np.int64]
    facts: dict[str, Any]


def prepare(config: PrepareSlice, folder: Path, workers: int = 0) -> Prepared:
    """Read a source, resize, split off the validation images, write all to `folder`.

    Raises:
        ValueError: if the source cannot be read, holds broken files (all are named), or a class is
            too small to be split.
    """
    source, data = SOURCES[config.dataset], config.data
    raw = source.read(named_folder("data.root", data.root) if data.root else None)
    size = data.image_size or source.image_size
    if isinstance(raw, RawImages):
        found = _from_arrays(raw, data, data.source_size or size)
    else:
        found = _from_files(raw, data, data.source_size or size, workers)
    channels, side = found.sums.shape[2], found.facts["side"]
    duplicates = count_duplicates(found.digests, found.rows)
    for pair, count in duplicates.items():
        if count:
            print(f"warning: {count} {pair.replace('_', ' ')} images: equal images", flush=True)
    # Integers, summed exactly: no order of the images changes a digit.
    train = found.sums[found.rows["train"]].sum(axis=0).astype(np.float64)
    mean, square = train / (len(found.rows["train"]) * side**2)
    deviation = np.sqrt(np.maximum(square - mean**2, 1e-7))
    with atomic_folder(folder) as temporary:
        for name, array in found.arrays.items():
            np.save(temporary / f"{name}.npy", array)
        for split in SPLITS:
            np.save(temporary / f"{split}_labels.npy", found.labels[found.rows[split]])
        files = {path.name: sha256(path) for path in sorted(temporary.glob("*.npy"))}
        write_sealed(
            temporary / "manifest.json",
            {
                "dataset": config.dataset,
                "title": source.title,
                "note": source.note,
                "classes": list(raw.classes),
                "counts": {split: len(found.rows[split]) for split in SPLITS},
                "shape": [size or side, size or side, channels],
                "mean": [round(float(value) / 255, 6) for value in mean],
                "deviation": [round(float(value) / 255, 6) for value in deviation],
                "duplicates": duplicates,
                **found.facts,
                "files": files,
            },
        )
    return open_prepared(folder, data.root, workers)


def _from_arrays(raw: RawImages, data: Data, side: int | None) -> _Found:
    """A source of arrays: its test set is its own."""
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
    whole = [_resize(images, side) for images in (raw.train_images, raw.test_images)]
    return _Found(
        labels=np.concatenate([raw.train_labels, raw.test_labels]),
        rows=rows,
        arrays={
            "train_images": whole[0][train],
            "validation_images": whole[0][validation],
            "test_images": whole[1],
        },
        digests=np.concatenate([pixel_digests(images) for images in whole]),
        sums=np.concatenate([_sums(images) for images in whole]),
        facts={
            "store": "array",
            "side": int(whole[0].shape[1]),
            "sizes": {"smallest": list(native[::-1]), "largest": list(native[::-1])},
            "ignored": 0,
            "skipped": [],
        },
    )


def _from_files(raw: RawFiles, data: Data, size: int | None, workers: int) -> _Found:
    """A source of image files: kept as pixels or as an index."""
    listings = {"train": raw.train, "validation": raw.validation, "test": raw.test}
    given = {split: listing for split, listing in listings.items() if listing is not None}
    paths = [path for listing in given.values() for path in listing.paths]
    side = size or _own_side(raw.root, paths)
    pixel_bytes = len(paths) * side**2 * 3
    as_array = data.store == "array" or (data.store == "auto" and pixel_bytes <= MOST_IN_MEMORY)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if as_array and pixel_bytes > memory / 2:
        raise ValueError(
            f"data.store={data.store!r}: {pixel_bytes / 2**30:.0f} GiB of pixels do not fit in "
            f"{memory / 2**30:.0f} GiB of memory twice; allowed: index, or a smaller "
            "data.image_size"
        )
    print(
        f"{len(paths)} images of {side}x{side} pixels, {pixel_bytes / 2**20:.0f} MiB: "
        + ("kept as one array" if as_array else "an index of files, decoded when they are read")
        + (f" ({raw.ignored} other files are passed over)" if raw.ignored else ""),
        flush=True,
    )
    found = scan(raw.root, paths, side, as_array, workers)
    _check_files(found, size, data.skip_broken)
    whole = np.array([row not in found.faults for row in range(len(paths))])
    labels = np.array([label for listing in given.values() for label in listing.labels])
    rows: dict[str, Rows] = {}
    start = 0
    for split, listing in given.items():
        stop = start + len(listing.paths)
        rows[split] = np.arange(start, stop)[whole[start:stop]]
        check_classes(split, raw.classes, labels[start:stop], labels[rows[split]])
        start = stop
    # Fixed: `data.split_seed` must not move the test images.
    for split, fraction, seed in (
        ("test", "test_fraction", 0),
        ("validation", "validation_fraction", data.split_seed),
    ):
        if split not in rows:
            own = labels[rows["train"]]
            left, taken = split_by_class(own, fraction, getattr(data, fraction), seed, raw.classes)
            rows["train"], rows[split] = rows["train"][left], rows["train"][taken]
    channels = 1 if found.grey[whole].all() else 3
    extremes = found.sizes[whole][np.argsort(found.sizes[whole].prod(axis=1), kind="stable")]
    return _Found(
        labels=labels.astype(np.int64),
        rows=rows,
        arrays={
            f"{split}_images": np.ascontiguousarray(found.pixels[rows[split]][..., :channels])
            for split in SPLITS
        }
        if as_array
        else {f"{split}_index": found.index(rows[split]) for split in SPLITS},
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


def _own_side(root: Path, paths: Sequence[str]) -> int:
    """The size at which images are kept where none is asked for: that of the first whole one."""
    for path in paths:
        try:
            width, height = decode(read_image(root / path)).size
        except (OSError, ValueError):
            continue  # they are all listed later
        if width != height or not SMALLEST <= width <= LARGEST:
            raise ValueError(
                f"data.image_size=None: {root / path} is of {width}x{height} pixels, and networks "
                f"see squares of {SMALLEST} to {LARGEST}; set data.image_size"
            )
        return width
    return SMALLEST


def _check_files(found: Scan, size: int | None, skip_broken: bool) -> None:
    """Raise ValueError for broken files, all of them at once, and for sizes that differ."""
    lines = [f"{found.name(row)}: {reason}" for row, reason in sorted(found.faults.items())]
    if lines and not skip_broken:
        raise ValueError(
            f"{len(lines)} of {len(found.paths)} files are broken; mend or remove them, or set "
            "data.skip_broken: true to leave them out\n" + "\n".join(lines)
        )
    for line in lines:
        print(f"left out: {line}", flush=True)
    sizes = np.unique(np.delete(found.sizes, list(found.faults), axis=0), axis=0)
    if size is None and len(sizes) > 1:
        raise ValueError(
            f"data.image_size=None: the images are of {len(sizes)} sizes, from "
            f"{sizes[0][0]}x{sizes[0][1]} to {sizes[-1][0]}x{sizes[-1][1]} pixels; set "
            "data.image_size"
        )


def _sums(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Sums `(N, 2, C)` of the values of images `(N, H, W, C)` and of their squares."""
    sums = np.empty((len(images), 2, images.shape[3]), np.int64)
    for start in range(0, len(images), 1024):  # memory stays bounded
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
