"""Building a cache: a teacher answers every view of every training image, and the plain images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meal.config.slices import CacheSlice
from meal.data.pipelines import PlainPipeline, ViewPipeline
from meal.data.prepared import Prepared
from meal.data.views import view_family
from meal.files import link, read_json, sha256, write_json
from meal.nets import weights
from meal.nets.blocks import ALIGNMENT_VERSION, BlockNetwork
from meal.nets.inference import batch_size, spans, split_logits
from meal.progress import Progress
from meal.teaching.cache import NETWORK, PLAIN_SPLITS, AnswerCache, Array, create, seal
from meal.teaching.topk import compress, index_dtype
from meal.work import WorkFolder

Layout = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]  # type and shape of arrays by name


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
    build continues with the view it was at, and gives the same bytes. With `cache.enabled: false`
    the views are answered for the moments of the blocks alone.

    Raises:
        ValueError: if `top_k` leaves no class out, or the disk lacks the room, said before the
            work begins.
    """
    spec, network = weights.load(teacher)
    blocks = weights.with_blocks(network, spec, config.cache.blocks, config.cache.align)
    blocks = blocks.to(device).eval()
    family = view_family(config.views)
    images, top_k = data.manifest["counts"]["train"], config.cache.top_k
    if top_k is not None and top_k >= spec.classes:
        raise ValueError(
            f"cache.top_k={top_k}: the dataset has {spec.classes} classes; "
            f"allowed: 1 to {spec.classes - 1}, or null"
        )
    layout = _layout(config, (config.view_count, images), spec.classes, blocks.block_sizes)
    _announce(config.name, layout, work.path)
    pipeline = ViewPipeline(PlainPipeline.of(data, "train", device), family)
    moments = _answer_views(config, blocks, pipeline, work.path, layout)
    for split in PLAIN_SPLITS:
        np.save(work.path / f"{split}_logits.npy", split_logits(network, data, split, device))
    if not config.cache.enabled:
        for name in ("network.json", "weights.safetensors"):
            link(teacher / name, work.path / NETWORK / name)
    (work.path / "progress.json").unlink()
    seal(
        work.path,
        {
            "name": config.name,
            "data": data.fingerprint,
            "views": family.identity,
            "view_count": config.view_count,
            "alignment": ALIGNMENT_VERSION,
            "align": config.cache.align,
            "weights": sha256(teacher / "weights.safetensors"),
            "network": asdict(spec),
            "enabled": config.cache.enabled,
            "dtype": config.cache.dtype,
            "top_k": top_k,
            "mean_of": None,
            "blocks": {str(k): moments[f"block{k}"] for k in blocks.block_levels},
        },
    )
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work.path.replace(folder)
    return AnswerCache(folder)


def _layout(
    config: CacheSlice, rows: tuple[int, int], classes: int, sizes: Mapping[int, int]
) -> Layout:
    """Name, type and shape of every array of answers to `rows` (views, images)."""
    if not config.cache.enabled:
        return {}
    dtype, k = np.dtype(config.cache.dtype), config.cache.top_k
    if k is None:
        answers: Layout = {"logits": (dtype, (*rows, classes))}
    else:
        answers = {
            "top_indices": (index_dtype(classes), (*rows, k)),
            "top_shares": (dtype, (*rows, k)),
        }
    return answers | {f"block{k}": (dtype, (*rows, size)) for k, size in sizes.items()}


def _answer_views(
    config: CacheSlice, network: BlockNetwork, pipeline: ViewPipeline, folder: Path, layout: Layout
) -> dict[str, dict[str, list[float]]]:
    """Fill the arrays of the training views; return the moments of the blocks' values."""
    progress_file, images = folder / "progress.json", len(pipeline)
    done = 0
    sums = {f"block{block}": np.zeros((2, size)) for block, size in network.block_sizes.items()}
    if progress_file.exists():
        state = read_json(progress_file)
        done, sums = state["views"], {name: np.array(v) for name, v in state["sums"].items()}
        print(f"cache of {config.name}: resumed after view {done}", flush=True)
    arrays = {
        name: create(folder / f"{name}.npy", dtype, shape, resume=done > 0)
        for name, (dtype, shape) in layout.items()
    }
    title = f"cache of {config.name}"
    with Progress(title, config.view_count * images, "images", done * images) as progress:
        for view in range(done, config.view_count):
            answered = 0
            for start, stop, answers in _answers(network, pipeline, view, config.cache.top_k):
                for name, values in answers.items():
                    if name in arrays:
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
        progress.show({})
    return {name: _moments(total / (config.view_count * images)) for name, total in sums.items()}


@torch.inference_mode()
def _answers(
    network: BlockNetwork, pipeline: ViewPipeline, view: int, top_k: int | None
) -> Iterator[tuple[int, int, dict[str, Array]]]:
    """Spans of images, and a teacher's answers to their views by the names of the arrays."""
    size = batch_size(network, pipeline.view_of_range(0, 1, view))
    for start, stop in spans(len(pipeline), size):
        logits, blocks = network(pipeline.view_of_range(start, stop, view))
        named: dict[str, Tensor] = {f"block{k}": values.float() for k, values in blocks.items()}
        if top_k is None:
            named["logits"] = logits.float()
        else:
            log_probabilities = torch.log_softmax(logits.float(), dim=1)
            named["top_indices"], named["top_shares"] = compress(log_probabilities, top_k)
        yield start, stop, {name: values.cpu().numpy() for name, values in named.items()}


def _moments(means: Array) -> dict[str, list[float]]:
    """Mean and deviation from the means of the values and of their squares."""
    mean, square = means
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    # A value that never changes carries nothing: dividing by one leaves it at zero.
    deviation = np.where(deviation > 1e-6 * np.maximum(1.0, np.abs(mean)), deviation, 1.0)
    return {"mean": mean.tolist(), "deviation": deviation.tolist()}


def _announce(name: str, layout: Layout, folder: Path) -> None:
    """Say how large the cache will be; raise if the disk lacks the room."""
    size = sum(dtype.itemsize * int(np.prod(shape)) for dtype, shape in layout.values())
    present = sum(path.stat().st_blocks * 512 for path in folder.glob("*.npy"))
    free = shutil.disk_usage(folder).free + present
    rows = next(iter(layout.values()))[1][:2] if layout else (0, 0)
    print(
        f"cache of {name}: {rows[0]} views of {rows[1]} images, {size / 2**20:.1f} MiB on disk "
        f"({', '.join(layout) or 'nothing: the teacher runs online'})",
        flush=True,
    )
    if size > free:
        raise ValueError(
            f"cache of {name} needs {size / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free in "
            f"{folder}; lower views.count"
        )
