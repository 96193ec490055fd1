"""Teachers that come with weights: loaded and verified, not trained."""

from __future__ import annotations

import numpy as np
import torch

from meal.core.errors import UserError
from meal.data.prepared import Prepared
from meal.models.checkpoint import load_state
from meal.models.factory import build, check_structure
from meal.models.foreign import load_foreign
from meal.models.hub import published_classes, published_state
from meal.models.memory import check_memory
from meal.models.spec import specify
from meal.supervised.settings import SupervisedSlice
from meal.training.engine import Trained
from meal.training.validation import validator


def load_teacher(config: SupervisedSlice, data: Prepared, device: torch.device) -> Trained:
    """Load a teacher's weights and verify them on validation.

    The result's history has one row, for epoch 0.

    Raises:
        UserError: if the weights are not available, do not fit, or predict no better than chance.
    """
    weights, key = config.network.weights, f"networks.{config.name}.weights"
    assert weights is not None
    spec = specify(config.network, data)
    check_memory(spec, device)
    check_structure(spec)
    network = build(spec)
    if weights == "pretrained":
        known = published_classes(spec.arch)
        if known != spec.classes:
            raise UserError(
                f"{key}='pretrained': {spec.arch} has {known} classes, but the dataset has "
                f"{spec.classes}; train it on these classes elsewhere and give that file"
            )
        state = published_state(spec.arch, spec.inner_shape[1], spec.options)
        load_state(network, state, f"{key}: the published state")
    else:
        load_foreign(network, weights, key)
    metrics = validator(data, device)(network.to(device).eval())
    error = metrics["top1_error"]
    print(f"{config.name}: loaded, {error:.2f}% validation error", flush=True)
    _check_better_than_chance(error, data.labels("validation").numpy(), key)
    row = {"epoch": 0, **{f"validation_{name}": value for name, value in metrics.items()}}
    state = {k: v.detach().cpu() for k, v in network.state_dict().items()}
    return Trained(spec, state, [row])


def _check_better_than_chance(error: float, labels: np.ndarray, key: str) -> None:
    """Raise UserError unless the network clearly beats always predicting the largest class."""
    images = len(labels)
    chance = float(np.bincount(labels).max() / images)
    bound = chance + 3 * (chance * (1 - chance) / images) ** 0.5
    if 1 - error / 100 <= bound:
        raise UserError(
            f"{key}: {error:.1f}% validation error is no better than chance "
            f"({100 - 100 * chance:.1f}%); likely causes: its classes are in a different order, it "
            "was trained with a different normalisation or size (networks.NAME.input), or its head "
            "is for other classes"
        )
