"""Tables that DVC plots: reliability, confusion, and errors by class."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from meal.core.files import write_csv
from meal.evaluation.metrics import class_errors, confusion
from meal.evaluation.predictions import BASELINE, ENSEMBLE, STUDENT, Predictions
from meal.metrics import calibration_bins

MODELS = (STUDENT, BASELINE, ENSEMBLE)
_MOST_CELLS = 2_500  # of a confusion matrix; larger ones keep the cells with the most images


def write_tables(predictions: Predictions, folder: Path) -> None:
    """Write `reliability/MODEL.csv`, `confusion.csv` and `classes.csv` into `folder`."""
    names = [str(name) for name in predictions.card["classes"]]
    for model in MODELS:
        confidence = predictions.models[model].confidence.astype(np.float64)
        bins = calibration_bins(confidence, predictions.correct(model))
        rows = [
            {
                "confidence": round(float(bins["confidence"][k]), 4),
                "accuracy": round(float(bins["accuracy"][k]), 4),
                "images": int(bins["images"][k]),
            }
            for k in np.flatnonzero(bins["images"])
        ]
        write_csv(folder / "reliability" / f"{model}.csv", rows)
    counts = confusion(predictions.models[STUDENT].predicted, predictions.labels, len(names))
    # A small matrix is drawn as a full square, zeros included; a large one keeps what occurs.
    labels, predicted = np.nonzero(counts if counts.size > _MOST_CELLS else counts >= 0)
    most = np.argsort(-counts[labels, predicted], kind="stable")[:_MOST_CELLS]
    write_csv(
        folder / "confusion.csv",
        [
            {"label": names[row], "prediction": names[column], "images": int(counts[row, column])}
            for row, column in sorted(zip(labels[most], predicted[most], strict=True))
        ],
    )
    errors = {
        model: class_errors(predictions.models[model].predicted, predictions.labels, len(names))
        for model in MODELS
    }
    write_csv(
        folder / "classes.csv",
        [
            {"class": name, **{model: errors[model][k] for model in MODELS}}
            for k, name in enumerate(names)
            if not math.isnan(errors[STUDENT][k])  # the class has no test images
        ],
    )
