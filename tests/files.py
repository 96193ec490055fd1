"""Miniature datasets in their real formats on disk, and images of every kind."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from meal.datasets.raw import RawImages


def pixels(count: int, seed: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(
    folder: Path, dataset: Any, monkeypatch: pytest.MonkeyPatch, train: int = 50, test: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Write a CIFAR archive of Python batches, and give torchvision its checksums."""
    base = folder / "made" / dataset.base_folder
    base.mkdir(parents=True)
    names = [name for name, _ in dataset.train_list]
    key, classes = dataset.meta["key"], 100 if "fine" in dataset.meta["key"] else 10
    images, held = pixels(train, 0), pixels(test, 1)
    labels = "fine_labels" if classes == 100 else "labels"

    def write(name: str, part: np.ndarray, first: int) -> tuple[str, str]:
        rows = part.transpose(0, 3, 1, 2).reshape(len(part), -1)
        numbers = [(first + k) % classes for k in range(len(part))]
        (base / name).write_bytes(pickle.dumps({"data": rows, labels: numbers}))
        return name, md5(base / name)

    parts = np.array_split(images, len(names))
    starts = np.cumsum([0, *map(len, parts)])
    trained = [write(n, p, int(s)) for n, p, s in zip(names, parts, starts, strict=False)]
    tested = [write(dataset.test_list[0][0], held, 0)]
    meta = base / dataset.meta["filename"]
    meta.write_bytes(pickle.dumps({key: [f"class {k}" for k in range(classes)]}))
    with tarfile.open(folder / dataset.filename, "w:gz") as archive:
        archive.add(base, dataset.base_folder)
    monkeypatch.setattr(dataset, "train_list", trained)
    monkeypatch.setattr(dataset, "test_list", tested)
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": md5(meta)})
    monkeypatch.setattr(dataset, "tgz_md5", md5(folder / dataset.filename))
    return images, held


def write_stl10(
    folder: Path, monkeypatch: pytest.MonkeyPatch, train: int = 20, test: int = 10, pool: int = 30
) -> dict[str, np.ndarray]:
    """Write STL-10's archive of binary files, whose images are transposed, and its checksums."""
    from torchvision.datasets import STL10

    base = folder / "made" / STL10.base_folder
    base.mkdir(parents=True)
    made = {"train": pixels(train, 0, 96), "test": pixels(test, 1, 96), "pool": pixels(pool, 2, 96)}
    listed: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for part, split, name in (
        ("train", "train", "train"), ("test", "test", "test"), ("pool", "train", "unlabeled"),
    ):  # fmt: skip
        (base / f"{name}_X.bin").write_bytes(made[part].transpose(0, 3, 2, 1).tobytes())
        listed[split].append((f"{name}_X.bin", ""))
        if part != "pool":
            labels = (np.arange(len(made[part])) % 10 + 1).astype(np.uint8)
            (base / f"{name}_y.bin").write_bytes(labels.tobytes())
            listed[split].append((f"{name}_y.bin", ""))
    (base / STL10.class_names_file).write_text("".join(f"class {k}\n" for k in range(10)))
    with tarfile.open(folder / STL10.filename, "w:gz") as archive:
        archive.add(base, STL10.base_folder)
    for split, files in listed.items():
        summed = [[name, md5(base / name)] for name, _ in files]
        monkeypatch.setattr(STL10, f"{split}_list", summed)
    monkeypatch.setattr(STL10, "tgz_md5", md5(folder / STL10.filename))
    return made


def held_out(raw: RawImages) -> tuple[np.ndarray, np.ndarray]:
    """The test images and labels of a dataset that has some."""
    assert raw.test_images is not None and raw.test_labels is not None
    return raw.test_images, raw.test_labels


def write_svhn(
    folder: Path, monkeypatch: pytest.MonkeyPatch, counts: Sequence[tuple[str, int]]
) -> dict[str, np.ndarray]:
    """Write SVHN's .mat files, where digit 0 is class 10, and give torchvision their checksums."""
    from torchvision.datasets import SVHN

    made, listed = {}, dict(SVHN.split_list)
    for seed, (split, count) in enumerate(counts):
        url, name, _ = SVHN.split_list[split]
        made[split] = pixels(count, seed)
        labels = np.arange(count) % 10
        labels[labels == 0] = 10
        savemat(folder / name, {"X": made[split].transpose(1, 2, 3, 0), "y": labels[:, None]})
        listed[split] = [url, name, md5(folder / name)]
    monkeypatch.setattr(SVHN, "split_list", listed)
    return made


def picture(seed: int = 0, size: tuple[int, int] = (40, 32), mode: str = "RGB") -> Image.Image:
    """A smooth picture, which JPEG changes very little."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    turn = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = np.stack([np.sin(3 * x + 2 * y + t) for t in turn], axis=-1)
    return Image.fromarray((127.5 + 127 * waves).astype(np.uint8)).convert(mode)


def write_classes(
    folder: Path, counts: dict[str, int], seed: int = 0, ending: str = "jpg", **options: Any
) -> None:
    """Write a sub-folder of pictures for each class."""
    for place, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            image = picture(seed + 1000 * place + k, **options)
            image.save(folder / name / f"{k:03d}.{ending}")


def as_bytes(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
