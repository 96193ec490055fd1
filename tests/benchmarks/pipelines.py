"""Images per second of the view pipeline, and of a cache build relative to bare forward passes."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from meal.cache.build import view_outputs
from meal.cache.parts import divide
from meal.models.factory import build, with_blocks
from meal.models.prediction import batch_size, spans
from meal.targets.cache import TargetCache, create, record, seal, view_file
from meal.views.batches import Visits
from tests.benchmarks.common import medians, report
from tests.benchmarks.step_cost import IMAGES, pipeline, spec

RECORD = record(10, "float16", None, dict.fromkeys((1, 2, 3), 16))


class _Images(Dataset[Any]):
    """What a torchvision user would write: crop with padding 4, flip, normalise, image by image."""

    def __init__(self, images: torch.Tensor) -> None:
        self._images = images.permute(0, 3, 1, 2).contiguous()
        self._transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5] * 3, [0.25] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Any:
        return self._transform(self._images[index])


def run_views(repeats: int = 5) -> None:
    """Compare the view pipeline with torchvision's transforms in a DataLoader."""
    views = pipeline()
    images = views._plain.store.whole
    assert images is not None
    view = 0

    def ours() -> None:
        nonlocal view
        view += 1  # a new view, so that drawing its parameters is timed, too
        visits = Visits(torch.arange(IMAGES), 128, seed=0)
        for _, rows in islice(visits.batches(view * visits.steps), visits.steps):
            views.view(rows, view)

    def loader(workers: int) -> DataLoader[Any]:
        return DataLoader(
            _Images(images), 128, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )

    loaders = {0: loader(0), 2: loader(2)}

    def theirs(workers: int) -> None:
        for _ in loaders[workers]:
            pass

    sides = {"views": ours}
    sides |= {f"v2, {n} workers": lambda n=n: theirs(n) for n in loaders}  # type: ignore[misc]
    seconds = medians(sides, repeats)
    best = min(value for name, value in seconds.items() if name != "views")
    rows = [
        {
            "pipeline": name,
            "images_per_second": round(IMAGES / value),
            "ratio": round(best / value, 2),
        }
        for name, value in seconds.items()
    ]
    report("views", rows, "images per second; ratio to torchvision's faster variant, 32x32x3")


def run_cache_build(repeats: int = 3) -> None:
    """Compare building a cache with the teacher's bare forward pass."""
    rows = []
    views = pipeline()
    for arch, width in (("resnet18", 0.25), ("mobilenet", 1.0)):
        network_spec = spec(arch, width)
        network = with_blocks(build(network_spec), network_spec, 3).eval()
        size = batch_size(network, torch.zeros(1, *views.shape))
        (part,) = divide(1, IMAGES)
        batch = views.view(torch.arange(size), 0)
        with tempfile.TemporaryDirectory() as folder:
            records = create(Path(folder) / view_file(0), RECORD, (IMAGES,))

            def fill(network: Any = network, records: Any = records, part: Any = part) -> None:
                for start, stop, outputs in view_outputs(network, views, part, None):
                    for name, values in outputs.items():
                        records[name][start:stop] = values

            @torch.inference_mode()
            def bare(network: Any = network, batch: Any = batch) -> None:
                for _ in spans(IMAGES, len(batch)):
                    network.network(batch)

            seconds = medians({"build": fill, "forward": bare}, repeats)
        rows.append(
            {
                "teacher": f"{arch}, width {width}",
                "build_images_per_second": round(IMAGES / seconds["build"]),
                "forward_images_per_second": round(IMAGES / seconds["forward"]),
                "ratio": round(seconds["forward"] / seconds["build"], 3),
            }
        )
    report("cache_build", rows, "speed of building a cache, relative to the bare forward pass")


def run_reading(repeats: int = 9) -> None:
    """Compare reading a cache in shuffled order with reading its rows in sequence."""
    images = 50_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split in ("validation", "test"):
            np.save(folder / f"{split}_logits.npy", np.zeros((1, 10), np.float32))
        for view in range(2):
            for field in RECORD.names or ():
                create(folder / view_file(view), RECORD, (images,))[field] = 1
        seal(folder, {"top_k": None, "blocks": {}})
        cache = TargetCache(folder, "cache")
        shuffled = np.random.default_rng(0).permutation(images)

        def read(rows: Any) -> None:
            outputs = cache.outputs(1, rows)
            for values in (outputs.logits, *(outputs.block(block) for block in (1, 2, 3))):
                assert len(values)

        def in_order() -> None:
            for start in range(0, images, 128):
                read(slice(start, start + 128))

        def in_any_order() -> None:
            for start in range(0, images, 128):
                read(shuffled[start : start + 128])

        seconds = medians({"in order": in_order, "shuffled": in_any_order}, repeats)
    rows = [
        {
            "order": order,
            "microseconds_per_batch": round(1e6 * value / (images / 128), 1),
            "ratio": round(value / seconds["in order"], 3),
        }
        for order, value in seconds.items()
    ]
    note = "reading batches of 128, logits and three blocks, 50,000 images"
    report("cache_reading", rows, note)
