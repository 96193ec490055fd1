"""A teacher's answers on disk: to every view of every training image, and to the plain images.

One folder a teacher: `logits.npy` `(views, images, C)`, `block1.npy` ... `(views, images, 16)`,
`validation_logits.npy` and `test_logits.npy` `(images, C)` in float32, and `manifest.json` with the
fingerprints of all that the answers depend on. Aligned blocks are stored as they come; their mean
and deviation over the training views stand in the manifest, and readers standardise with them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from meal.config import CacheSlice
from meal.data.prepared import Prepared, Split
from meal.data.views import PlainPipeline, ViewFamily, ViewPipeline
from meal.files import read_json, read_sealed, sha256, write_json, write_sealed
from meal.nets import weights
from meal.nets.blocks import ALIGNED, ALIGNMENT_VERSION, BlockNetwork
from meal.nets.inference import BATCH_SIZE, plain_logits, spans
from meal.training.progress import Progress
from meal.work import WorkFolder

Array = NDArray[Any]

PLAIN_SPLITS: tuple[Split, ...] = ("validation", "test")


class AnswerCache:
    """A cache folder, opened for reading. Arrays are memory-mapped when first used."""

    def __init__(self, folder: Path) -> None:
        """Open a cache.

        Raises:
            ValueError: if the manifest or a file it names is missing or damaged.
        """
        self.folder = folder
        try:
            self.manifest = read_sealed(folder / "manifest.json")
        except ValueError as error:
            raise ValueError(f"{error}; {_mend(folder)}") from None
        for name, digest in self.manifest["files"].items():
            if not (folder / name).is_file() or sha256(folder / name) != digest:
                raise ValueError(f"{folder / name} is missing or damaged; {_mend(folder)}")
        self._arrays: dict[str, Array] = {}

    @property
    def blocks(self) -> list[int]:
        """The numbers of the blocks that the teacher has."""
        return [int(block) for block in self.manifest["blocks"]]

    def array(self, name: str) -> Array:
        """An array by its file's name without `.npy`, read-only."""
        if name not in self._arrays:
            path = self.folder / f"{name}.npy"
            self._arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        return self._arrays[name]

    def moments(self, block: int) -> tuple[Array, Array]:
        """Mean and deviation `(16,)` of a block's values over the training views, float32."""
        entry = self.manifest["blocks"][str(block)]
        return np.array(entry["mean"], np.float32), np.array(entry["deviation"], np.float32)


def seal(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a finished cache, with the checksums of its arrays."""
    files = {path.name: sha256(path) for path in sorted(folder.glob("*.npy"))}
    write_sealed(folder / "manifest.json", {**manifest, "files": files})


def build_cache(
    config: CacheSlice,
    data: Prepared,
    teacher: Path,
    folder: Path,
    work: WorkFolder,
    device: torch.device,
) -> AnswerCache:
    """Let a teacher answer all views, the validation and the test images; write them to `folder`.

    The cache is built in `work`, view by view, and moved into place at the end: an interrupted
    build continues with the view it was at, and gives the same bytes.

    Raises:
        ValueError: if the disk lacks the room, said before the work begins.
    """
    spec, network = weights.load(teacher)
    blocks = weights.with_blocks(network, spec, config.cache.blocks).to(device).eval()
    family = ViewFamily.of(config.views)
    dtype = np.dtype(config.cache.dtype)
    count, images = config.view_count, data.manifest["counts"]["train"]
    shapes = {"logits": (count, images, spec.classes)}
    shapes |= {f"block{k}": (count, images, ALIGNED) for k in blocks.block_levels}
    _announce(config.name, shapes, dtype, work.path)

    training = ViewPipeline(PlainPipeline.of(data, "train", device), family)
    moments = _answer_views(config, blocks, training, work.path, shapes, dtype)
    for split in PLAIN_SPLITS:
        np.save(work.path / f"{split}_logits.npy", plain_logits(network, data, split, device))
    seal(
        work.path,
        {
            "name": config.name,
            "data": data.fingerprint,
            "views": family.identity,
            "view_count": count,
            "alignment": ALIGNMENT_VERSION,
            "weights": sha256(teacher / "weights.safetensors"),
            "network": asdict(spec),
            "dtype": config.cache.dtype,
            "blocks": {str(k): moments[f"block{k}"] for k in blocks.block_levels},
        },
    )
    (work.path / "progress.json").unlink()
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work.path.replace(folder)
    return AnswerCache(folder)


def _answer_views(
    config: CacheSlice,
    network: BlockNetwork,
    pipeline: ViewPipeline,
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: np.dtype[Any],
) -> dict[str, dict[str, list[float]]]:
    """Fill the arrays of the training views; return the moments of the blocks' values."""
    progress_file = folder / "progress.json"
    done, sums = 0, {name: np.zeros((2, ALIGNED)) for name in shapes if name != "logits"}
    if progress_file.exists():
        state = read_json(progress_file)
        done, sums = state["views"], {name: np.array(v) for name, v in state["sums"].items()}
        print(f"cache of {config.name}: resumed after view {done}", flush=True)
    arrays = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="r+" if done else "w+", dtype=dtype, shape=shape
        )
        for name, shape in shapes.items()
    }
    images = len(pipeline)
    title = f"cache of {config.name}"
    with Progress(title, config.view_count * images, "images", done * images) as progress:
        for view in range(done, config.view_count):
            answered = 0
            for start, stop in spans(images, BATCH_SIZE):
                answers = _answer(network, pipeline, start, stop, view)
                for name, values in answers.items():
                    arrays[name][view, start:stop] = values
                    if name in sums:  # a span may overlap the one before: count an image once
                        fresh = values[answered - start :].astype(np.float64)
                        sums[name] += np.stack([fresh.sum(axis=0), (fresh**2).sum(axis=0)])
                progress.advance(stop - answered)
                answered = stop
                if progress.due():
                    progress.show({})
            for array in arrays.values():
                array.flush()
            state = {"views": view + 1, "sums": {name: v.tolist() for name, v in sums.items()}}
            write_json(progress_file, state)
    return {name: _moments(total / (config.view_count * images)) for name, total in sums.items()}


@torch.inference_mode()
def _answer(
    network: BlockNetwork, pipeline: ViewPipeline, start: int, stop: int, view: int
) -> dict[str, NDArray[np.float32]]:
    """Logits and blocks of images from `start` to `stop` in one view, as float32 arrays."""
    logits, blocks = network(pipeline.view_of_range(start, stop, view))
    named = {"logits": logits, **{f"block{k}": values for k, values in blocks.items()}}
    return {name: values.float().cpu().numpy() for name, values in named.items()}


def _moments(means: Array) -> dict[str, list[float]]:
    """Mean and deviation from the means of the values and of their squares."""
    mean, square = means
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    # A value that never changes carries nothing: dividing by one leaves it at zero.
    deviation = np.where(deviation > 1e-6 * np.maximum(1.0, np.abs(mean)), deviation, 1.0)
    return {"mean": mean.tolist(), "deviation": deviation.tolist()}


def _announce(
    name: str, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any], folder: Path
) -> None:
    """Say how large the cache will be; raise if the disk lacks the room."""
    size = sum(int(np.prod(shape)) for shape in shapes.values()) * dtype.itemsize
    present = sum(path.stat().st_size for path in folder.glob("*.npy"))
    free = shutil.disk_usage(folder).free + present
    views, images, classes = shapes["logits"]
    print(
        f"cache of {name}: {views} views of {images} images, {classes} classes, "
        f"{len(shapes) - 1} blocks, {dtype.name}: {size / 2**20:.1f} MiB on disk",
        flush=True,
    )
    if size > free:
        raise ValueError(
            f"cache of {name} needs {size / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free in "
            f"{folder}; lower views.count"
        )


def _mend(folder: Path) -> str:
    return f"mend it with: dvc repro --force cache@{folder.name}"
