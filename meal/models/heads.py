"""The head of a network, the layers whose shape follows the number of classes; and its backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from meal.core.errors import UserError
from meal.models.parts import inner, submodule
from meal.models.spec import NetworkSpec
from meal.models.trial import examine

Frozen = Literal["backbone"] | Sequence[str]


def head_names(spec: NetworkSpec) -> list[str]:
    """The names of the modules that change shape with the number of classes.

    Raises:
        UserError: if there are none.
    """
    own, other = _shapes(spec), _shapes(replace(spec, classes=spec.classes + 1))
    changed = [name for name, shape in own.items() if other.get(name) != shape]
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in changed))
    if not names or "" in names:
        raise UserError(f"{spec.arch} has no layer of its own for the classes, so it has no head")
    return names


def _shapes(spec: NetworkSpec) -> dict[str, torch.Size]:
    """The shapes of a network's parameters."""
    return examine(spec, lambda network: {name: p.shape for name, p in network.named_parameters()})


def freeze(network: nn.Module, spec: NetworkSpec, frozen: Frozen, key: str) -> list[nn.Module]:
    """Exclude sub-modules from training.

    Args:
        network: the network.
        spec: its specification.
        frozen: the names of sub-modules, or `backbone` for everything but the head.
        key: the key in params.yaml, for messages.

    Returns:
        The modules that must stay in eval mode, so that their statistics do not change either.

    Raises:
        UserError: if there is no such sub-module, or nothing is left to train.
    """
    if frozen == "backbone":
        heads = [f"{name}." for name in head_names(spec)]
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith(tuple(heads)))
        return [
            module
            for name, module in network.named_modules()
            if name and not any(head.startswith(f"{name}.") for head in heads)
        ]
    held = [submodule(inner(network)[1], name, key) for name in frozen]
    for module in held:
        module.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"{key}={frozen!r}: nothing is left to train; name fewer sub-modules")
    return held
