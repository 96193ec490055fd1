"""Draw the run and write it down: figures, and a page that holds everything it shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from meal.data.prepared import Prepared
from meal.evaluation.predictions import BASELINE, STUDENT, TEACHER, Predictions
from meal.files import atomic_folder, read_json
from meal.reporting import pictures
from meal.reporting.page import write_page
from stages.common import PREDICTIONS, REPORTS, TRAINING, run_stage
from stages.data import open_data


def main() -> None:
    """Write `reports/figures` and `reports/index.html`."""
    data, predictions = open_data(), Predictions.load(PREDICTIONS)
    metrics = read_json(REPORTS / "metrics.json")
    files = {STUDENT: "student", BASELINE: "baseline"}
    files |= {TEACHER + name: f"teachers/{name}" for name in predictions.teachers}
    curves = {model: pd.read_csv(TRAINING / f"{file}.csv") for model, file in files.items()}
    drawn = [
        pictures.error_against_cost(metrics),
        pictures.training_curves(curves),
        pictures.reliability(predictions),
        pictures.confusion_matrices(predictions),
        pictures.error_similarity(predictions),
        pictures.seen_differently(predictions, lambda rows: test_images(data, rows)),
    ]
    manifest = data.manifest
    heading = f"{manifest['title']}, {manifest['counts']['test']} test images"
    with atomic_folder(REPORTS / "figures") as figures:
        write_page(
            REPORTS / "index.html",
            figures,
            (heading, manifest["note"].capitalize()),
            metrics,
            predictions,
            [picture for picture in drawn if picture],
            REPORTS / "dataset.png",
        )


def test_images(data: Prepared, rows: Sequence[int]) -> NDArray[np.uint8]:
    """The pixels `(B, H, W, C)` of test images by their numbers."""
    return data.images("test").fetch(torch.tensor(rows)).numpy()


if __name__ == "__main__":
    run_stage(main)
