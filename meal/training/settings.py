"""How a network is optimised: `teaching`, and its counterparts in `distill`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from meal.core.fields import Count, Fraction, Integer, NonNegative, Number, Positive
from meal.core.settings import Section


class Schedule(Section):
    """A learning rate over the epochs.

    `cosine` decays to zero; `step` multiplies by `lr_gamma` at each of `milestones` (epochs,
    counted from 0); `constant` does not change. The rate first rises linearly over `warmup_epochs`.
    """

    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: list[Count] = []
    lr_gamma: Annotated[Number, Field(gt=0, le=1)] = 0.1
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

    @model_validator(mode="after")
    def _steps_need_milestones(self) -> Optimisation:
        if self.schedule == "step" and not self.milestones:
            raise ValueError("milestones=[]: schedule: step needs the epochs of its steps")
        return self


class Training(Optimisation):
    """One run of the training loop.

    `batch_size` counts images. `keep` is the epoch whose weights are the result: the last, or the
    one with the lowest validation error. A schedule that ends low has its best weights at the end,
    and the best of many epochs on few validation images is best by chance. `ema` is the decay of a
    moving average of the weights, which then replaces them; 0 for none.
    """

    epochs: Annotated[Integer, Field(ge=1, le=100_000)]
    batch_size: Annotated[Integer, Field(ge=2, le=65_536)]
    precision: Literal["float32", "bfloat16"] = "float32"
    keep: Literal["last", "best"] = "last"
    ema: Fraction = 0.0
