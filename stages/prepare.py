"""Read the images, split off the validation set, write arrays or an index, and a data card."""

from __future__ import annotations

import torch

from meal.core import ranks
from meal.core.collectives import join
from meal.core.paths import CHECKPOINTS, CONFIG, CONTACT_SHEET, DATA, DATA_CARD
from meal.core.runtime import load_runtime
from meal.core.settings import load_slice
from meal.core.stage import run_stage
from meal.core.work import WorkFolder
from meal.data.prepared import SPLITS
from meal.data.stores import worker_count
from meal.prepare.card import write_card
from meal.prepare.preparation import prepare
from meal.prepare.settings import PrepareSlice, reading


def main() -> None:
    """Prepare the dataset and print what it holds."""
    config = load_slice(PrepareSlice, CONFIG / "prepare.json")
    join(torch.device("cpu"))
    work = WorkFolder(CHECKPOINTS, "prepare", {"config": reading(config.model_dump(mode="json"))})
    data = prepare(config, DATA, worker_count(load_runtime().workers), work.path)
    if not ranks.is_first():
        return
    write_card(data, DATA_CARD, CONTACT_SHEET)
    work.remove()
    counts = ", ".join(f"{data.count(split)} {split}" for split in SPLITS)
    labels, (channels, height, width) = data.manifest["labels"], data.shape
    print(
        f"{data.manifest['title']}: {counts} images of {height}x{width} pixels, "
        f"{channels} channel(s), {data.classes} classes; labels: {labels['train']} for training, "
        f"{labels['validation']} for validation"
    )


if __name__ == "__main__":
    run_stage(main, ranked=True)
