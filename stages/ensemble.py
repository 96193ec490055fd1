"""Put the chosen teachers' caches together and add their mean."""

from __future__ import annotations

import shutil

from meal.config.loading import load_slice
from meal.config.slices import EnsembleSlice
from meal.data.prepared import open_prepared
from meal.teaching.ensemble import build_ensemble
from stages.common import CACHES, CONFIG, DATA, ENSEMBLE, TRAINING, run_stage


def main() -> None:
    """Link the caches; remove what belongs to teachers no longer chosen."""
    config = load_slice(EnsembleSlice, CONFIG / "ensemble.json")
    teachers, labels = config.teachers, open_prepared(DATA).labels("validation").numpy()
    build_ensemble(teachers, CACHES, ENSEMBLE, labels, config.weights)
    # DVC keeps both in its cache: a teacher that comes back is restored, not retrained.
    for folder in CACHES.iterdir():
        if folder.name not in teachers:
            shutil.rmtree(folder)
    for curve in (TRAINING / "teachers").glob("*.csv"):
        if curve.stem not in teachers:
            curve.unlink()


if __name__ == "__main__":
    run_stage(main)
