"""Link the caches of the chosen teachers and add their mean."""

from __future__ import annotations

import shutil

from meal.core.paths import CACHES, CONFIG, DATA, ENSEMBLE, TRAINING
from meal.core.settings import load_slice
from meal.core.stage import run_stage
from meal.data.prepared import open_prepared
from meal.ensemble.build import build_ensemble
from meal.ensemble.settings import EnsembleSlice


def main() -> None:
    """Build the ensemble; remove caches and curves of teachers that are no longer chosen."""
    config = load_slice(EnsembleSlice, CONFIG / "ensemble.json")
    labels = open_prepared(DATA).labels("validation").numpy()
    build_ensemble(config, CACHES, ENSEMBLE, labels)
    # DVC's cache keeps both: a teacher that is chosen again is restored, not retrained.
    for folder in CACHES.iterdir():
        if folder.is_dir() and folder.name not in config.teachers:
            shutil.rmtree(folder)
    for curve in (TRAINING / "teachers").glob("*.csv"):
        if curve.stem not in config.teachers:
            curve.unlink()


if __name__ == "__main__":
    run_stage(main)
