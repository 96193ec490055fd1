"""From a source's images to the prepared data: resized, split, measured, sealed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from meal.config.slices import PrepareSlice
from meal.data.prepared import SPLITS, Prepared, open_prepared
from meal.data.sources import SOURCES, RawImages
from meal.files import atomic_folder, sha256, write_sealed


def prepare(config: PrepareSlice, folder: Path) -> Prepared:
    """Read a source, resize, split off the validation images, write all to `folder`.

    Raises:
        ValueError: if the source cannot be read or a class is too small to be split.
    """
    source = SOURCES[config.dataset]
    root = Path(config.data.root).expanduser() if config.data.root else None
    raw = source.read(root)
    size = config.data.image_size or source.image_size
    train, validation = _split(raw, config)
    arrays: dict[str, NDArray[Any]] = {
        "train_images": _resize(raw.train_images[train], size),
        "train_labels": raw.train_labels[train],
        "validation_images": _resize(raw.train_images[validation], size),
        "validation_labels": raw.train_labels[validation],
        "test_images": _resize(raw.test_images, size),
        "test_labels": raw.test_labels,
    }
    with atomic_folder(folder) as temporary:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
        files = {f"{name}.npy": sha256(temporary / f"{name}.npy") for name in arrays}
        # Grey levels are counted, not averaged: exact, and no float copy of the images.
        pixels = arrays["train_images"].reshape(-1, arrays["train_images"].shape[-1])
        levels = np.stack([np.bincount(channel, minlength=256) for channel in pixels.T])
        shares = levels / len(pixels)
        values = np.arange(256) / 255
        mean = shares @ values
        deviation = np.sqrt(np.maximum(shares @ values**2 - mean**2, 1e-12))
        write_sealed(
            temporary / "manifest.json",
            {
                "dataset": config.dataset,
                "title": source.title,
                "note": source.note,
                "classes": list(raw.classes),
                "counts": {split: len(arrays[f"{split}_labels"]) for split in SPLITS},
                "shape": list(arrays["train_images"].shape[1:]),
                "mean": [round(float(value), 6) for value in mean],
                "deviation": [round(float(value), 6) for value in deviation],
                "files": files,
            },
        )
    return open_prepared(folder)


def _split(raw: RawImages, config: PrepareSlice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of training and validation images, stratified by class, each in rising order."""
    from sklearn.model_selection import train_test_split

    try:
        train, validation = train_test_split(
            np.arange(len(raw.train_labels)),
            test_size=config.data.validation_fraction,
            stratify=raw.train_labels,
            random_state=config.data.split_seed % 2**32,
        )
    except ValueError as error:
        raise ValueError(
            f"data.validation_fraction={config.data.validation_fraction}: the training images "
            f"cannot be split by class: {error}"
        ) from None
    return np.sort(train), np.sort(validation)


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
