"""Read the images, split off the validation set, write arrays or an index, and a data card."""

from __future__ import annotations

from meal.config.loading import load_slice
from meal.config.slices import PrepareSlice
from meal.data.card import write_card
from meal.data.preparation import prepare
from meal.data.prepared import SPLITS
from meal.data.stores import worker_count
from stages.common import CONFIG, DATA, REPORTS, run_stage, runtime


def main() -> None:
    """Prepare the dataset and say what it holds."""
    config = load_slice(PrepareSlice, CONFIG / "prepare.json")
    data = prepare(config, DATA, worker_count(runtime().workers))
    write_card(data, REPORTS / "dataset.json", REPORTS / "dataset.png")
    counts = ", ".join(f"{data.manifest['counts'][split]} {split}" for split in SPLITS)
    channels, height, width = data.shape
    print(
        f"{data.manifest['title']}: {counts} images of {height}x{width} pixels, "
        f"{channels} channel(s), {data.classes} classes"
    )


if __name__ == "__main__":
    run_stage(main)
