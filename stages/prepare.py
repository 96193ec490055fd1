"""Read the images, split off the validation set, write arrays and a manifest."""

from __future__ import annotations

from meal.config.loading import load_slice
from meal.config.slices import PrepareSlice
from meal.data.preparation import prepare
from meal.data.prepared import SPLITS
from stages.common import CONFIG, DATA, run_stage


def main() -> None:
    """Prepare the dataset and say what it holds."""
    data = prepare(load_slice(PrepareSlice, CONFIG / "prepare.json"), DATA)
    counts = ", ".join(f"{data.manifest['counts'][split]} {split}" for split in SPLITS)
    channels, height, width = data.shape
    print(
        f"{data.manifest['title']}: {counts} images of {height}x{width} pixels, "
        f"{channels} channel(s), {data.classes} classes"
    )


if __name__ == "__main__":
    run_stage(main)
