"""Tables that DVC draws: reliability, confusion and the errors of single classes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from meal.evaluation.metrics import class_errors, confusion
from meal.evaluation.predictions import BASELINE, ENSEMBLE, STUDENT, Predictions
from meal.files import write_csv
from meal.metrics import calibration_bins

MODELS = (STUDENT, BASELINE, ENSEMBLE)
_MOST_CELLS = 2_500  # of a confusion matrix; of more classes, those with the most images


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
    counts = confusion(predictions.models[STUDENT].answers, predictions.labels, len(names))
    # Also what never happens, so that the picture is square; of many classes what happens alone.
    labels, answers = np.nonzero(counts if counts.size > _MOST_CELLS else counts >= 0)
    most = np.argsort(-counts[labels, answers], kind="stable")[:_MOST_CELLS]
    write_csv(
        folder / "confusion.csv",
        [
            {"label": names[label], "answer": names[answer], "images": int(counts[label, answer])}
            for label, answer in sorted(zip(labels[most], answers[most], strict=True))
        ],
    )
    errors = {
        model: class_errors(predictions.models[model].answers, predictions.labels, len(names))
        for model in MODELS
    }
    write_csv(
        folder / "classes.csv",
        [
            {"class": name, **{model: errors[model][k] for model in MODELS}}
            for k, name in enumerate(names)
            if not math.isnan(errors[STUDENT][k])  # no test image shows it
        ],
    )
