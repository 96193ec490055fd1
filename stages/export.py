"""Write the student as a folder that works without this pipeline."""

from __future__ import annotations

from meal.core.files import read_json
from meal.core.paths import CONFIG, EXPORT, PREDICTIONS, SCORES, STUDENT
from meal.core.settings import load_slice
from meal.core.stage import run_stage
from meal.data.prepared import open_data
from meal.evaluation.predictions import FIX, Predictions
from meal.export.bundle import Finished, export
from meal.export.settings import ExportSlice
from meal.models.checkpoint import load


def main() -> None:
    """Write weights, ONNX file, and model card, and verify them on the test images."""
    config = load_slice(ExportSlice, CONFIG / "export.json")
    predictions, metrics = Predictions.load(PREDICTIONS), read_json(SCORES, FIX)
    export(config, Finished(load(STUDENT), open_data(), predictions, metrics), EXPORT)


if __name__ == "__main__":
    run_stage(main)
