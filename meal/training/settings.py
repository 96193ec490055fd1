"""How a network is optimised: `teaching`, and its counterparts in `distill`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from meal.core.fields import Count, Fraction, Integer, NonNegative, Number, Positive, unset
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
    """How parameters follow their gradients.

    `momentum` and `nesterov` are of SGD, with the defaults of the paper's CIFAR settings; `betas`
    are AdamW's. `decay_norms` is whether the weight decay also applies to norms and biases.
    `clip_norm` is the largest norm of the gradient, None for no limit.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Positive
    momentum: Fraction = 0.9
    nesterov: bool = True
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    weight_decay: NonNegative = 0.0
    decay_norms: bool = True
    clip_norm: Annotated[Positive | None, unset("none")] = None

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Optimisation:
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
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
    and the best of many epochs on few validation images is best by chance. `early_stopping` is the
    number of epochs without a better one after which training ends, None for none. `ema` is the
    decay of a moving average of the weights, which then replaces them; 0 for none. `compile` is the
    mode of `torch.compile`: `reduce-overhead` uses CUDA graphs.

    For fine-tuning: `layer_decay` is the factor on the learning rate from one layer to the one
    before it; `frozen` names sub-modules that do not change, or `backbone`, all but the last layer.
    """

    epochs: Annotated[Integer, Field(ge=1, le=100_000)]
    batch_size: Annotated[Integer, Field(ge=2, le=65_536)]
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: Literal["none", "default", "reduce-overhead"] = "none"
    label_smoothing: Fraction = 0.0
    keep: Literal["last", "best"] = "last"
    early_stopping: Annotated[Count | None, unset("none")] = None
    ema: Fraction = 0.0
    layer_decay: Annotated[Number, Field(gt=0, le=1)] = 1.0
    frozen: Literal["backbone"] | list[Annotated[str, Field(min_length=1)]] = []

    @model_validator(mode="after")
    def _stopping_keeps_the_best(self) -> Training:
        if self.early_stopping is not None and self.keep != "best":
            raise ValueError(
                f"early_stopping={self.early_stopping}: the last epoch is then a worse one; "
                "allowed: none, or keep: best"
            )
        return self
