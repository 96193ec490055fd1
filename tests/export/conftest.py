"""A finished run in miniature: a tiny student, its data, and predictions of all models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from meal.data.prepared import Prepared
from meal.evaluation.costs import cost_metrics, count
from meal.evaluation.scoring import ModelOutputs, score_models
from meal.export.bundle import Finished
from meal.export.settings import ExportSlice
from meal.metrics import log_softmax
from meal.models.checkpoint import Loaded
from meal.models.factory import build
from meal.models.prediction import split_logits
from meal.models.settings import NetworkSlice
from meal.models.spec import NetworkSpec, specify
from tests.conftest import distill_settings

MODELS = ("teachers/one", "ensemble", "ensemble_fitted", "baseline", "student")


def config(**changes: Any) -> ExportSlice:
    return ExportSlice.model_validate(
        {
            "name": "small",
            "input": "uint8",
            "int8": False,
            "licence": "none",
            "teachers": {"one": {"arch": "tiny", "width": 2.0}},
            "method": distill_settings().model_dump(mode="json"),
            **changes,
        }
    )


def finished(data: Prepared, **network: Any) -> Finished:
    """A run whose student has random weights."""
    spec = specify(NetworkSlice.model_validate({"arch": "tiny", **network}), data)
    student = build(spec, seed=3)
    with torch.no_grad():  # moments of its own, and logits that differ clearly
        student.train()
        for _ in range(3):
            student(torch.randn(64, *data.shape))
        for parameter in list(student.parameters())[-2:]:
            parameter.mul_(20)
    student.eval()
    sides = [
        log_softmax(split_logits(student, data, split, torch.device("cpu")))
        for split in ("test", "validation")
    ]
    labels = [data.labels(split).numpy() for split in ("test", "validation")]
    outputs = [ModelOutputs(name, sides[0], sides[1]) for name in MODELS]
    card = {"classes": data.manifest["classes"], "images": data.digest("test")}
    scores = score_models(outputs, labels[0], labels[1], card)
    cost = count(NetworkSpec("tiny", 1.0, data.shape[0], data.shape[1], data.classes))
    metrics = {**scores.metrics, "cost": cost_metrics(cost, {"one": cost})}
    return Finished(Loaded(spec, student), data, scores.predictions, metrics)


@pytest.fixture
def run(data: Prepared) -> Finished:
    return finished(data)


def pixels(data: Prepared) -> np.ndarray:
    """The test images as the ONNX file takes them."""
    return data.images("test").fetch(torch.arange(data.count("test"))).numpy()
