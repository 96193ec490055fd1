"""Building a cache: run a teacher on every view of every training image, and on plain images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meal.cache import parts as cache_parts
from meal.cache.parts import Part, Shard, Sums, divide, is_done, moments, write_note
from meal.cache.settings import CacheSlice
from meal.core import ranks
from meal.core.collectives import broadcast
from meal.core.digests import sha256
from meal.core.errors import UserError
from meal.core.files import link, move, save_array
from meal.core.progress import Progress
from meal.core.work import WorkFolder
from meal.data.prepared import Prepared
from meal.models import checkpoint
from meal.models.blocks import ALIGNMENT_VERSION, BlockNetwork
from meal.models.factory import with_blocks
from meal.models.prediction import batch_size, spans, split_logits
from meal.models.spec import NetworkSpec
from meal.targets.cache import (
    NETWORK,
    PLAIN_SPLITS,
    VIEWS,
    Array,
    Memmap,
    create,
    record,
    seal,
    view_file,
)
from meal.targets.topk import compress
from meal.views.families import view_family, views_digest
from meal.views.pipelines import ViewPipeline


class CacheBuild:
    """A cache under construction in a folder of unfinished work."""

    def __init__(
        self,
        config: CacheSlice,
        data: Prepared,
        teacher: Path,
        work: WorkFolder,
        device: torch.device,
        shard: Shard | None = None,
    ) -> None:
        """Load the teacher and check that the cache fits on the disk.

        Args:
            config: the teacher's name, the views, and what is stored.
            data: the prepared data.
            teacher: the folder of the teacher's weights.
            work: where the cache is built.
            device: where the teacher runs.
            shard: this process's share of the views; None for all of them.

        Raises:
            UserError: if `top_k` keeps every class, or the disk has too little space.
        """
        self._config, self._data, self._teacher = config, data, teacher
        self._work, self._device = work, device
        loaded = checkpoint.load(teacher)
        self._spec, settings = loaded.spec, config.cache
        blocks = with_blocks(loaded.network, self._spec, settings.blocks, settings.align)
        self._network = blocks.to(device).eval()
        self._family = view_family(config.views)
        images, top_k = data.count("train"), settings.top_k
        if top_k is not None and top_k >= self._spec.classes:
            raise UserError(
                f"cache.top_k={top_k}: the dataset has {self._spec.classes} classes; "
                f"allowed: 1 to {self._spec.classes - 1}, or all"
            )
        self._record = record_of(config, self._spec, self._network)
        _announce(config, images, self._record, work.path)
        # Without a cache and without blocks, nothing would be kept of the views.
        views = config.view_count if self._record or blocks.block_sizes else 0
        self._shard, self._parts = shard, divide(views, images)

    def compute(self) -> None:
        """Compute the missing outputs for the views: all of them, or those of the shard.

        Ranks share the missing parts.

        With `cache.enabled: false`, only the moments of the blocks are kept.
        """
        pipeline = ViewPipeline.of(self._data, self._family, self._device)
        mine = self._parts if self._shard is None else self._shard.of(self._parts)
        left = broadcast(self._missing(mine) if ranks.is_first() else [])
        title, total = f"cache of {self._config.name}", sum(map(len, mine))
        done = total - sum(map(len, left))
        if done:
            print(f"{title}: resumed after {done} of {total} images", flush=True)
        own = left[ranks.own(len(left))]
        with Progress(title, done + sum(map(len, own)), "images", done) as progress:
            for part in own:
                self._compute_part(part, pipeline, progress)
            progress.show({})

    def _missing(self, parts: Sequence[Part]) -> list[Part]:
        """Those that are not done."""
        return [part for part in parts if not is_done(self._work.path, part, self._records(part))]

    def _records(self, part: Part) -> Memmap | None:
        """The records of the view of a part, for writing; None if outputs are not stored."""
        if self._record is None:
            return None
        path = self._work.path / view_file(part.view)
        return create(path, self._record, (self._data.count("train"),))

    def _compute_part(self, part: Part, pipeline: ViewPipeline, progress: Progress) -> None:
        records = self._records(part)
        sums, stored = Sums(self._network.block_sizes), part.start
        for start, stop, outputs in view_outputs(
            self._network, pipeline, part, self._config.cache.top_k
        ):
            if records is not None:
                self._store(records[start:stop], outputs)
            sums.add(outputs, skipped=stored - start)  # a span may overlap the previous one
            progress.advance(stop - stored)
            stored = stop
            if progress.due():
                progress.show({})
        if records is not None:
            records.flush()
        write_note(self._work.path, part, records, sums)

    def _store(self, records: Array, outputs: Mapping[str, Array]) -> None:
        """Write outputs, by name, into the records of their images."""
        for name in records.dtype.names or ():
            self._check_range(name, outputs[name], records[name].dtype)
            records[name] = outputs[name]

    def _check_range(self, name: str, values: Array, dtype: np.dtype[Any]) -> None:
        """Raise UserError if values do not fit the type in which they are stored."""
        if not np.issubdtype(values.dtype, np.floating):
            return
        largest, most = float(np.abs(values).max()), float(np.finfo(dtype).max)
        if not np.isfinite(largest):
            raise UserError(
                f"cache of {self._config.name}: {name} has values that are not finite; look at the "
                f"weights of {self._config.name}"
            )
        if largest > most:
            raise UserError(
                f"cache of {self._config.name}: {name} has values up to {largest:.3g}, and "
                f"cache.dtype={dtype.name} holds {most:.3g} at most; set cache.dtype: float32"
            )

    def finish(self, folder: Path) -> None:
        """Add the outputs for plain images and the manifest, and move the cache to `folder`.

        Ranks compute together; the first one writes.
        """
        path, config = self._work.path, self._config
        plain = {
            split: split_logits(self._network.network, self._data, split, self._device)
            for split in PLAIN_SPLITS
        }
        if not ranks.is_first():
            return
        for leftover in path.rglob(".*.npy.*"):  # of a process that was killed; none is writing
            leftover.unlink()
        blocks = moments(path, self._parts)
        for split, logits in plain.items():
            save_array(path / f"{split}_logits.npy", logits)
        if not config.cache.enabled:
            for name in ("network.json", "weights.safetensors"):
                link(self._teacher / name, path / NETWORK / name)
        seal(
            path,
            {
                "name": config.name,
                "data": self._data.fingerprint,
                "views": self._family.identity,
                "view_count": config.view_count,
                "alignment": ALIGNMENT_VERSION,
                "align": config.cache.align,
                "weights": sha256(self._teacher / "weights.safetensors"),
                "code": views_digest(),
                "image_size": self._data.shape[1],
                "network": asdict(self._spec),
                "enabled": config.cache.enabled,
                "dtype": config.cache.dtype,
                "top_k": config.cache.top_k,
                "block_count": config.cache.blocks,
                "mean_of": None,
                "blocks": {str(k): blocks[f"block{k}"] for k in self._network.block_levels},
            },
        )
        if folder.exists():
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        move(path, folder)
        shutil.rmtree(folder / cache_parts.FOLDER, ignore_errors=not self._parts)


def record_of(
    config: CacheSlice, spec: NetworkSpec, network: BlockNetwork
) -> np.dtype[np.void] | None:
    """What is stored for an image in a view; None if nothing is."""
    settings = config.cache
    if not settings.enabled:
        return None
    return record(spec.classes, settings.dtype, settings.top_k, network.block_sizes)


@torch.inference_mode()
def view_outputs(
    network: BlockNetwork, pipeline: ViewPipeline, part: Part, top_k: int | None
) -> Iterator[tuple[int, int, dict[str, Array]]]:
    """Yield a teacher's outputs for a part: a span of images, and values by array name."""
    size = batch_size(network, torch.zeros(1, *pipeline.shape, device=pipeline.device))
    order: Sequence[tuple[int, Tensor]] = [
        (part.view, torch.arange(part.start + start, part.start + stop))
        for start, stop in spans(len(part), size)
    ]
    for batch in pipeline.batches(order):
        rows, (logits, blocks) = batch.rows, network(batch.images)
        named: dict[str, Tensor] = {f"block{k}": values.float() for k, values in blocks.items()}
        if top_k is None:
            named["logits"] = logits.float()
        else:
            log_probabilities = torch.log_softmax(logits.float(), dim=1)
            named["top_indices"], named["top_probabilities"] = compress(log_probabilities, top_k)
        outputs = {name: values.cpu().numpy() for name, values in named.items()}
        yield int(rows[0]), int(rows[-1]) + 1, outputs


def _announce(
    config: CacheSlice, images: int, record: np.dtype[np.void] | None, folder: Path
) -> None:
    """Print the size of the cache; raise UserError if the disk has too little space."""
    size = 0 if record is None else record.itemsize * images * config.view_count
    named = "nothing: the teacher runs online" if record is None else ", ".join(record.names or ())
    present = sum(path.stat().st_blocks * 512 for path in folder.glob(f"{VIEWS}/*.npy"))
    free = shutil.disk_usage(folder).free + present
    print(
        f"cache of {config.name}: {config.view_count} views of {images} images, "
        f"{size / 2**20:.1f} MiB on disk ({named})",
        flush=True,
    )
    if size > free:
        raise UserError(
            f"cache of {config.name} needs {size / 2**20:.1f} MiB, but {folder} has only "
            f"{free / 2**20:.1f} MiB free; lower views.count"
        )
