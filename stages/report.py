"""Draw the figures and write the page of the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from meal.core import paths
from meal.core.errors import UserError
from meal.core.files import atomic_folder, read_json, read_sealed
from meal.core.settings import load_slice
from meal.core.stage import run_stage
from meal.data.prepared import Prepared, open_data
from meal.evaluation.predictions import BASELINE, FIX, STUDENT, TEACHER, Predictions
from meal.report import pictures
from meal.report.page import write_page
from meal.report.settings import ReportSlice
from meal.report.tables import heading


def main() -> None:
    """Write `reports/figures` and `reports/index.html`."""
    data, predictions = open_data(), Predictions.load(paths.PREDICTIONS)
    metrics = read_json(paths.SCORES, FIX)
    config = load_slice(ReportSlice, paths.CONFIG / "report.json")
    files = {STUDENT: "student", BASELINE: "baseline"}
    files |= {TEACHER + name: f"teachers/{name}" for name in predictions.teachers}
    curves = {model: read_curve(paths.TRAINING / f"{file}.csv") for model, file in files.items()}
    drawn = [
        pictures.error_against_cost(metrics),
        pictures.training_curves(curves),
        pictures.reliability(predictions),
        pictures.confusion_matrices(predictions),
        pictures.error_similarity(predictions),
        pictures.seen_differently(predictions, lambda rows: test_images(data, rows)),
    ]
    with atomic_folder(paths.FIGURES) as figures:
        write_page(
            paths.REPORTS / "index.html",
            figures,
            heading(data.manifest),
            config,
            metrics,
            predictions,
            [picture for picture in drawn if picture],
            read_sealed(paths.SIGNIFICANCE, FIX)["rows"],
            paths.CONTACT_SHEET,
            read_json(paths.TIMINGS, "python -m meal timings --write"),
        )


def read_curve(path: Path) -> pd.DataFrame:
    """A training curve, one row per epoch."""
    try:
        curve = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; fix: dvc repro") from None
    if not {"epoch", "validation_top1_error"} <= set(curve.columns):
        raise UserError(f"{path} is not a training curve; fix: dvc repro")
    return curve


def test_images(data: Prepared, rows: Sequence[int]) -> NDArray[np.uint8]:
    """The pixels `(B, H, W, C)` of test images by their numbers."""
    return data.images("test").fetch(torch.tensor(rows)).numpy()


if __name__ == "__main__":
    run_stage(main)
