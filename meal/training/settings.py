"""How a network is optimised: `teaching`, and its counterparts in `distill`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from meal.core.fields import Count, Fraction, Integer, NonNegative, Positive
from meal.core.settings import Section


class Schedule(Section):
    """A learning rate over the epochs.

    `cosine` decays to zero; `step` multiplies by `lr_gamma` at each of `milestones` (epochs,
    counted from 0); `constant` does not change. The rate first rises linearly over `warmup_epochs`.
    """

    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: list[Count] = []
    lr_gamma: Positive = 0.1
    warmup_epochs: NonNegative = 0.0


class Optimisation(Schedule):
    """SGD, by default with Nesterov momentum, as in the paper's CIFAR settings."""

    lr: Positive
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: NonNegative = 0.0

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Optimisation:
        if self.nesterov and self.momentum == 0:
            raise ValueError("momentum=0: nesterov: true needs momentum above 0")
        return self


class Training(Optimisation):
    """One run of the training loop. `batch_size` counts images."""

    epochs: Count
    batch_size: Annotated[Integer, Field(ge=2)]
    precision: Literal["float32", "bfloat16"] = "float32"
