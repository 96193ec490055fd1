"""Optimizers: one per group of parameters, with learning rates that follow the step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from meal.models.parts import inner
from meal.training.schedule import factor
from meal.training.settings import Optimisation

EPSILON = 1e-8  # of AdamW: torch's default


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


@dataclass(frozen=True)
class _Part:
    """Parameters with one weight decay and one factor on the learning rate, and their state.

    Attributes:
        state: for each parameter, the momentum of SGD, if there is any; or the step and the two
            moments of AdamW.
    """

    parameters: Sequence[nn.Parameter]
    weight_decay: float
    scale: float
    state: Sequence[Sequence[Tensor]]


class GroupOptimizer:
    """The optimizer of one group.

    The updates are torch's functional ones: `torch.optim.Optimizer` imports torch's compiler when
    the first one is made, which nearly doubles the start-up of a stage.
    """

    def __init__(self, group: ParameterGroup) -> None:
        """Start an optimizer over `group`, which has parameters to train."""
        self._settings = group.optimisation
        self._parts = list(_parts(group))
        self._parameters = [parameter for part in self._parts for parameter in part.parameters]
        # Fused steps are no faster on a CPU (reports/benchmarks/options.json).
        fused = self._parameters[0].device.type == "cuda"
        self._kernels = {"fused": fused, "foreach": not fused}
        self._rate = self._settings.lr

    def step(self, step: int, steps_per_epoch: int, epochs: int) -> None:
        """Clip the gradients and update the parameters, at the learning rate of `step`.

        Parameters without a gradient stay as they are.
        """
        self._rate = self._settings.lr * factor(self._settings, step, steps_per_epoch, epochs)
        if self._settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._settings.clip_norm)
        with torch.no_grad():
            for part in self._parts:
                self._update(part)

    def _update(self, part: _Part) -> None:
        parameters: list[Tensor] = []
        gradients: list[Tensor] = []
        remembered: list[Sequence[Tensor]] = []
        for parameter, state in zip(part.parameters, part.state, strict=True):
            if parameter.grad is not None:
                parameters.append(parameter)
                gradients.append(parameter.grad)
                remembered.append(state)
        if not parameters:
            return
        states: list[Any] = [list(tensors) for tensors in zip(*remembered, strict=True)]
        common: Any = {
            "lr": self._rate * part.scale,
            "weight_decay": part.weight_decay,
            "maximize": False,
            **self._kernels,
        }
        settings = self._settings
        if settings.optimizer == "adamw":
            steps, means, squares = states
            first, second = settings.betas
            moments: Any = {"beta1": first, "beta2": second, "eps": EPSILON, "amsgrad": False}
            moments["has_complex"] = any(map(torch.is_complex, parameters))
            adamw(parameters, gradients, means, squares, [], steps, **moments, **common)
            return
        momenta = states[0] if states else [None] * len(parameters)
        options: Any = {
            "momentum": settings.momentum,
            "nesterov": settings.nesterov,
            "dampening": 0.0,
        }
        sgd(parameters, gradients, momenta, **options, **common)

    def state_dict(self) -> list[Tensor]:
        """All tensors of its state, in the order of the parameters."""
        return [tensor for part in self._parts for state in part.state for tensor in state]

    @torch.no_grad()
    def load_state_dict(self, saved: Sequence[Tensor]) -> None:
        """Restore what `state_dict` returned for the same group."""
        for tensor, value in zip(self.state_dict(), saved, strict=True):
            tensor.copy_(value)

    @property
    def rate(self) -> float:
        """The highest learning rate of the last step."""
        return self._rate * max(part.scale for part in self._parts)


def _parts(group: ParameterGroup) -> Iterator[_Part]:
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
        yield _Part(parameters, decay, scale, [_state(settings, each) for each in parameters])


def _state(settings: Optimisation, parameter: nn.Parameter) -> list[Tensor]:
    """What an optimizer remembers of a parameter before the first step.

    The fused step of SGD needs a momentum for all parameters or for none, and parameters that
    belong to one teacher have no gradient before its first step. Zeros change nothing.
    """
    if settings.optimizer == "adamw":
        fused = parameter.device.type == "cuda"
        step = torch.zeros((), device=parameter.device if fused else "cpu")
        return [step, torch.zeros_like(parameter), torch.zeros_like(parameter)]
    return [torch.zeros_like(parameter)] if settings.momentum else []


def layer_scales(network: nn.Module, decay: float) -> dict[str, float]:
    """The factor on the learning rate of each parameter: `decay ** (layers above it)`.

    The layers are timm's own groups, as in BEiT (Bao et al., 2022, appendix); for other networks,
    the sub-modules in their order: those in a `Sequential` count one by one, and a norm belongs to
    the layer before it.
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
    members: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        members.setdefault(_layer_of(network, name), {})[name] = parameter
    numbers: dict[str, int] = {}
    number = -1
    for layer in members.values():
        if number < 0 or any(parameter.ndim > 1 for parameter in layer.values()):
            number += 1
        numbers.update(dict.fromkeys(layer, number))
    return numbers


def _layer_of(network: nn.Module, name: str) -> str:
    """The outermost sub-module that has a parameter and is no `Sequential`."""
    path, module = name.split("."), network
    for depth, part in enumerate(path, start=1):
        module = getattr(module, part)
        if not isinstance(module, nn.Sequential):
            return ".".join(path[:depth])
    return name
