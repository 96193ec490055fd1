"""Teachers that come with weights: loaded and verified, not trained."""

from __future__ import annotations

import torch

from meal.core.errors import UserError
from meal.data.prepared import Prepared
from meal.models.factory import build, check_structure
from meal.models.foreign import load_weights
from meal.models.memory import check_memory
from meal.models.spec import specify
from meal.supervised.chance import worse_than_chance
from meal.supervised.settings import SupervisedSlice
from meal.training.contract import Trained
from meal.training.validation import validator


def load_teacher(config: SupervisedSlice, data: Prepared, device: torch.device) -> Trained:
    """Load a teacher's weights and verify them on validation.

    The result's history has one row, for epoch 0.

    Raises:
        UserError: if the weights are not available, do not fit, or predict no better than chance.
    """
    key = f"networks.{config.name}.weights"
    spec = specify(config.network, data)
    check_memory(spec, device)
    check_structure(spec, f"networks.{config.name}")
    network = build(spec)
    load_weights(network, spec, config.network, key)
    metrics = validator(data, device)(network.to(device).eval())
    error = metrics["top1_error"]
    print(f"{config.name}: loaded, {error:.2f}% validation error", flush=True)
    fault = worse_than_chance(error, data.labels("validation").numpy())
    if fault is not None:
        raise UserError(
            f"{key}: {fault}its classes are in a different order, it was trained with a different "
            "normalisation or size (networks.NAME.input), or its head is for other classes"
        )
    row = {"epoch": 0, **{f"validation_{name}": value for name, value in metrics.items()}}
    state = {k: v.detach().cpu() for k, v in network.state_dict().items()}
    return Trained(spec, state, [row])
