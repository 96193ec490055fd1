"""Teachers that come with weights: nothing is trained, everything is verified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from meal.config.slices import SupervisedSlice
from meal.data.prepared import Prepared
from meal.nets import origins, pretrained
from meal.nets.foreign import load_state, locate, read_state
from meal.nets.spec import NetworkSpec
from meal.nets.weights import build
from meal.training.engine import History
from meal.training.validation import validator


def load_teacher(
    config: SupervisedSlice, data: Prepared, device: torch.device, downloads: Path
) -> tuple[NetworkSpec, dict[str, Tensor], History]:
    """Load a teacher's weights and verify them on validation.

    Returns:
        The network's specification, its state, and one row of measures, as of an epoch 0.

    Raises:
        ValueError: if the weights cannot be had, do not fit, or answer no better than chance.
    """
    weights, key = config.network.weights, f"networks.{config.name}.weights"
    assert weights is not None
    spec = origins.specify(config.network, data)
    network = build(spec)
    if weights == "pretrained":
        known = pretrained.pretrained_classes(spec.arch)
        if known != spec.classes:
            raise ValueError(
                f"{key}='pretrained': {spec.arch} knows {known} classes, the dataset has "
                f"{spec.classes}; train it on them elsewhere, and give that file"
            )
        state, source = pretrained.pretrained_state(spec), f"{key}: what is pretrained"
    else:
        path = locate(weights, key, downloads)
        state, source = read_state(path), f"{key}: {path}"
    load_state(network, state, source)
    measures = validator(data, device)(network.to(device).eval())
    error = measures["top1_error"]
    print(f"{config.name}: loaded, {error:.2f}% validation error", flush=True)
    labels = data.labels("validation").numpy()
    _check_better_than_chance(error, np.bincount(labels) / len(labels), len(labels), key)
    row = {"epoch": 0, **{f"validation_{name}": value for name, value in measures.items()}}
    return spec, {k: v.detach().cpu() for k, v in network.state_dict().items()}, [row]


def _check_better_than_chance(error: float, shares: np.ndarray, images: int, key: str) -> None:
    """Raise ValueError unless right answers exceed those of always naming the largest class."""
    chance = float(shares.max())
    bound = chance + 3 * (chance * (1 - chance) / images) ** 0.5
    if 1 - error / 100 <= bound:
        raise ValueError(
            f"{key}: {error:.1f}% validation error is no better than chance "
            f"({100 - 100 * chance:.1f}%); probably its classes are in another order, it was "
            "trained with another normalisation or size (networks.NAME.input), or its head "
            "belongs to other classes"
        )
