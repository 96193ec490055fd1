"""Shared fixtures: a tiny network, tiny prepared data, the repository's own parameters."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from meal.configure.recipes import apply_recipes
from meal.data.prepared import Prepared
from meal.datasets import registry
from meal.datasets.raw import RawImages
from meal.datasets.registry import Dataset
from meal.distill.settings import Distill
from meal.models.zoo import registry as zoo
from meal.models.zoo.registry import Architecture
from meal.prepare.preparation import prepare
from meal.prepare.settings import PrepareSlice

ROOT = Path(__file__).parent.parent
# With several test processes, use one thread each: more would spin while waiting for each other.
THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
os.environ["OMP_NUM_THREADS"] = str(THREADS)  # of the processes that tests start


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    torch.set_num_threads(THREADS)
    yield


@pytest.fixture
def raw_params() -> dict[str, Any]:
    """The repository's own params.yaml, as a dictionary to change."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return copy.deepcopy(params)


def recipe_params(name: str) -> dict[str, Any]:
    """The repository's own parameters after applying a recipe."""
    text = apply_recipes([name], ROOT / "params.yaml", ROOT / "recipes")
    params: dict[str, Any] = yaml.safe_load(text)
    return params


def tiny_network(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    """Three convolutions at 16, 8 and 4 pixels, with BatchNorm: enough to have every block."""
    planes = int(8 * width)

    def stage(inputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, planes, 3, stride, 1, bias=False), nn.BatchNorm2d(planes), nn.ReLU()
        )

    return nn.Sequential(
        stage(channels, 1),
        stage(planes, 2),
        stage(planes, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(planes, classes),
    )


@pytest.fixture(autouse=True)
def tiny_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the tiny network to the zoo during each test."""
    entry = Architecture(tiny_network, scales=True)
    monkeypatch.setitem(zoo.ZOO, "tiny", entry)


def tiny_images(count: int, seed: int) -> tuple[Any, Any]:
    """Images of three classes: dark, grey and bright noise."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = generator.integers(0, 200, (count, 16, 16, 1)) + 20 * labels[:, None, None, None]
    return images.astype(np.uint8), labels.astype(np.int64)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """Prepared data of 96 training, 24 validation and 30 test images."""

    def read(root: Path | None) -> RawImages:
        return RawImages(*tiny_images(120, 0), *tiny_images(30, 1), ("left", "middle", "right"))

    monkeypatch.setitem(registry.DATASETS, "tiny", Dataset("tiny", read, flip=False))
    config = PrepareSlice.model_validate({"dataset": "tiny", "data": {"validation_fraction": 0.2}})
    return prepare(config, tmp_path / "data")


def distill_settings(**changes: Any) -> Distill:
    """Distillation settings for tests: the defaults of the schema, and `changes`."""
    base = {"epochs": 2, "batch_size": 32, "lr": 0.05, "discriminator": {"lr": 0.01}}
    return Distill.model_validate({**base, **changes})
