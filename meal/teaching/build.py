"""Building a cache: a teacher answers every view of every training image, and the plain images.

The work is cut into parts, a range of images in one view each. A part that is done is noted with
its checksum, so that a build goes on where it stopped, and several processes may share the parts
(`MEAL_SHARD=i/n`): whoever answers a part, the cache has the same bytes.
"""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meal.config.slices import CacheSlice
from meal.data.pipelines import PlainPipeline, ViewPipeline
from meal.data.prepared import Prepared
from meal.data.views import view_family
from meal.files import link, read_sealed, sha256, write_sealed
from meal.nets import weights
from meal.nets.blocks import ALIGNMENT_VERSION, BlockNetwork
from meal.nets.inference import batch_size, spans, split_logits
from meal.progress import Progress
from meal.teaching.cache import NETWORK, PLAIN_SPLITS, AnswerCache, Array, create, seal
from meal.teaching.topk import compress, index_dtype
from meal.work import WorkFolder

Layout = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]  # type and shape of arrays by name
Shard = tuple[int, int]  # which, counted from 1, of how many

_PARTS = "parts"  # the folder of notes on the parts that are done
_MOST_IMAGES = 1 << 16  # of a part: an interruption loses no more


@dataclass(frozen=True)
class Part:
    """The images from `start` to `stop` in a view."""

    number: int
    view: int
    start: int
    stop: int


def cut(views: int, images: int) -> list[Part]:
    """Cut the views of the images into parts, no one much smaller than the others."""
    cuts = -(-images // _MOST_IMAGES)
    bounds = [images * cut // cuts for cut in range(cuts + 1)]
    return [
        Part(view * cuts + cut, view, bounds[cut], bounds[cut + 1])
        for view in range(views)
        for cut in range(cuts)
    ]


def parse_shard(text: str) -> Shard:
    """`i/n` as numbers.

    Raises:
        ValueError: if it is not a whole number from 1 to n, of n.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    which, number = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= which <= number:
        raise ValueError(f"MEAL_SHARD={text!r}: i/n is expected, i from 1 to n, as 2/4")
    return which, number


def build_cache(
    config: CacheSlice,
    data: Prepared,
    teacher: Path,
    folder: Path,
    work: WorkFolder,
    device: torch.device,
    shard: Shard | None = None,
) -> AnswerCache | None:
    """Let a teacher answer all views, the validation and the test images; write them to `folder`.

    The cache is built in `work`, part by part, and moved into place at the end. With a shard, its
    parts are answered and nothing else is done: returns None. With `cache.enabled: false` the views
    are answered for the moments of the blocks alone.

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
    for leftover in work.path.glob(".*.npy.*") if shard is None else ():
        leftover.unlink()  # of a process that was killed while it made an array
    _announce(config.name, layout, work.path)
    pipeline = ViewPipeline(PlainPipeline.of(data, "train", device), family)
    parts = cut(config.view_count, images)
    which, number = shard or (1, 1)
    mine = parts[len(parts) * (which - 1) // number : len(parts) * which // number]
    _answer_parts(config, blocks, pipeline, work.path, layout, mine)
    if shard is not None:
        return None
    moments = _moments_of(work.path, parts, config.view_count * images)
    for split in PLAIN_SPLITS:
        np.save(work.path / f"{split}_logits.npy", split_logits(network, data, split, device))
    if not config.cache.enabled:
        for name in ("network.json", "weights.safetensors"):
            link(teacher / name, work.path / NETWORK / name)
    shutil.rmtree(work.path / _PARTS)
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
    return AnswerCache(folder, f"cache@{config.name}")


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


def _answer_parts(
    config: CacheSlice,
    network: BlockNetwork,
    pipeline: ViewPipeline,
    folder: Path,
    layout: Layout,
    parts: list[Part],
) -> None:
    """Fill the rows of `parts` in the arrays of `layout`, but of those that are done."""
    arrays = {name: create(folder / f"{name}.npy", *kind) for name, kind in layout.items()}
    left = [part for part in parts if not _is_done(folder, part, arrays)]
    title, total = f"cache of {config.name}", sum(part.stop - part.start for part in parts)
    done = total - sum(part.stop - part.start for part in left)
    if done:
        print(f"{title}: resumed after {done} of {total} answers", flush=True)
    sizes = network.block_sizes
    with Progress(title, total, "images", done) as progress:
        for part in left:
            sums = {f"block{block}": np.zeros((2, size)) for block, size in sizes.items()}
            answered = part.start
            for start, stop, answers in _answers(network, pipeline, part, config.cache.top_k):
                for name, values in answers.items():
                    if name in arrays:
                        arrays[name][part.view, start:stop] = values
                    if name in sums:  # a span may overlap the one before: count an image once
                        fresh = values[answered - start :].astype(np.float64)
                        sums[name] += np.stack([fresh.sum(axis=0), (fresh**2).sum(axis=0)])
                progress.advance(stop - answered)
                answered = stop
                if progress.due():
                    progress.show({})
            for array in arrays.values():
                array.flush()
            note = {
                "sums": {name: values.tolist() for name, values in sums.items()},
                "checksum": _checksum(part, arrays),
            }
            write_sealed(_note_file(folder, part), note, shared=True)
        progress.show({})


def _note_file(folder: Path, part: Part) -> Path:
    return folder / _PARTS / f"{part.number:06d}.json"


def _is_done(folder: Path, part: Part, arrays: Mapping[str, Array]) -> bool:
    """Whether a part's answers are there, and are what was written."""
    file = _note_file(folder, part)
    if not file.exists():
        return False
    try:
        whole = read_sealed(file)["checksum"] == _checksum(part, arrays)
    except ValueError:
        whole = False
    if not whole:
        print(f"warning: {file} or its answers are damaged; they are made again", flush=True)
    return whole


def _checksum(part: Part, arrays: Mapping[str, Array]) -> int:
    """A checksum of the answers of a part, in the order of the arrays."""
    value = 0
    for array in arrays.values():
        answers = np.ascontiguousarray(array[part.view, part.start : part.stop])
        value = zlib.crc32(answers.data, value)
    return value


def _moments_of(folder: Path, parts: list[Part], answers: int) -> dict[str, dict[str, list[float]]]:
    """Mean and deviation of the blocks' values, added up in the order of the parts."""
    totals: dict[str, Array] = {}
    for part in parts:
        for name, sums in read_sealed(_note_file(folder, part))["sums"].items():
            totals[name] = totals.get(name, 0) + np.array(sums)
    return {name: _moments(total / answers) for name, total in totals.items()}


@torch.inference_mode()
def _answers(
    network: BlockNetwork, pipeline: ViewPipeline, part: Part, top_k: int | None
) -> Iterator[tuple[int, int, dict[str, Array]]]:
    """Spans of images, and a teacher's answers to their views by the names of the arrays."""
    size = batch_size(network, torch.zeros(1, *pipeline.shape, device=pipeline.device))
    order = [
        torch.arange(part.start + start, part.start + stop)
        for start, stop in spans(part.stop - part.start, size)
    ]
    for rows, images in pipeline.batches(order, part.view):
        logits, blocks = network(images)
        named: dict[str, Tensor] = {f"block{k}": values.float() for k, values in blocks.items()}
        if top_k is None:
            named["logits"] = logits.float()
        else:
            log_probabilities = torch.log_softmax(logits.float(), dim=1)
            named["top_indices"], named["top_shares"] = compress(log_probabilities, top_k)
        answers = {name: values.cpu().numpy() for name, values in named.items()}
        yield int(rows[0]), int(rows[-1]) + 1, answers


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
