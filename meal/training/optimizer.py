"""Optimizers: one per group of parameters, with learning rates that follow the step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from meal.models.parts import inner
from meal.training.schedule import factor
from meal.training.settings import Optimisation


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are optimised in one way.

    Attributes:
        module: its parameters that require gradients.
        optimisation: optimizer, learning rate, weight decay, schedule.
        layer_decay: the factor on the learning rate from one layer to the one before it.
    """

    module: nn.Module
    optimisation: Optimisation
    layer_decay: float = 1.0


class GroupOptimizer:
    """The optimizer of one group."""

    def __init__(self, group: ParameterGroup) -> None:
        """Start an optimizer over `group`, which has parameters to train."""
        self._settings = group.optimisation
        parts = list(_parts(group))
        self._parameters = [parameter for part in parts for parameter in part["params"]]
        # Fused steps are no faster on a CPU (reports/benchmarks/options.json).
        fused = self._parameters[0].device.type == "cuda"
        kernels = {"fused": fused, "foreach": not fused}
        self.optimizer: torch.optim.Optimizer
        if self._settings.optimizer == "adamw":
            first, second = self._settings.betas
            self.optimizer = torch.optim.AdamW(parts, self._settings.lr, (first, second), **kernels)
            return
        momentum, nesterov = self._settings.momentum, self._settings.nesterov
        self.optimizer = torch.optim.SGD(
            parts, self._settings.lr, momentum, nesterov=nesterov, **kernels
        )
        if momentum:
            # The fused step needs a buffer for all parameters or for none, and parameters that
            # belong to one teacher have no gradient before its first step. Zeros change nothing.
            for parameter in self._parameters:
                self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def step(self, step: int, steps_per_epoch: int, epochs: int) -> None:
        """Clip the gradients and update the parameters, at the learning rate of `step`."""
        rate = self._settings.lr * factor(self._settings, step, steps_per_epoch, epochs)
        for part in self.optimizer.param_groups:
            part["lr"] = rate * part["scale"]
        if self._settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._settings.clip_norm)
        self.optimizer.step()

    @property
    def rate(self) -> float:
        """The highest learning rate of the last step."""
        return max(float(part["lr"]) for part in self.optimizer.param_groups)


def _parts(group: ParameterGroup) -> Iterator[dict[str, Any]]:
    """The parameters by their weight decay and their factor on the learning rate."""
    settings, named = group.optimisation, dict(group.module.named_parameters())
    scales = layer_scales(group.module, group.layer_decay) if group.layer_decay != 1 else {}
    parts: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        if parameter.requires_grad:
            decays = settings.decay_norms or parameter.ndim > 1
            key = settings.weight_decay if decays else 0.0, scales.get(name, 1.0)
            parts.setdefault(key, []).append(parameter)
    for (decay, scale), parameters in parts.items():
        yield {"params": parameters, "weight_decay": decay, "scale": scale}


def layer_scales(network: nn.Module, decay: float) -> dict[str, float]:
    """The factor on the learning rate of each parameter: `decay ** (layers above it)`.

    The layers are timm's own groups, as in BEiT (Bao et al., 2022, appendix); for other networks,
    the sub-modules at the top level, in their order.
    """
    prefix, own = inner(network)
    layers = _layers(own)
    last = max(layers.values())
    return {f"{prefix}{name}": decay ** (last - layer) for name, layer in layers.items()}


def _layers(network: Any) -> Mapping[str, int]:
    """The number of the layer of each parameter, from the input on."""
    if hasattr(network, "group_matcher"):
        from timm.models import group_parameters

        found: dict[str, int] = group_parameters(
            network, network.group_matcher(coarse=False), reverse=True
        )
        return found
    children = dict.fromkeys(name.partition(".")[0] for name, _ in network.named_parameters())
    numbers = {child: number for number, child in enumerate(children)}
    return {name: numbers[name.partition(".")[0]] for name, _ in network.named_parameters()}
