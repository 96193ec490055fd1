"""The parts of a network: sub-modules by name, its head, and its backbone, all but the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from meal.core.errors import UserError
from meal.models.adapter import Adapted

Frozen = Literal["backbone"] | Sequence[str]


def inner(network: nn.Module) -> tuple[str, nn.Module]:
    """The network behind its input adapter, and the prefix of its names in `network`."""
    return ("inner.", network.inner) if isinstance(network, Adapted) else ("", network)


def submodule(network: nn.Module, name: str, key: str) -> nn.Module:
    """The sub-module of that name.

    Raises:
        UserError: if there is none; it begins with `key`, the key in params.yaml.
    """
    try:
        return network.get_submodule(name)
    except AttributeError:
        children = ", ".join(child for child, _ in network.named_children())
        raise UserError(
            f"{key}={name!r}: no such sub-module; those at the top level are: {children}"
        ) from None


def head_names(network: nn.Module, classes: int) -> list[str]:
    """The names of the layers that return the logits: timm's classifier, or else the last layer.

    Raises:
        UserError: if no layer returns `classes` values.
    """
    prefix, own = inner(network)
    layers = {
        name: module
        for name, module in own.named_modules()
        if getattr(module, "out_features", getattr(module, "out_channels", None)) == classes
    }
    known = _classifier(own)
    names = [name for name, module in layers.items() if module in known] or [*layers][-1:]
    if not names:
        raise UserError(f"no layer returns {classes} values, so none can be its head")
    return [prefix + name for name in names]


def freeze(network: nn.Module, frozen: Frozen, classes: int, key: str) -> list[nn.Module]:
    """Exclude sub-modules from training.

    Args:
        network: the network.
        frozen: the names of sub-modules, or `backbone`.
        classes: the number of logits.
        key: the key in params.yaml, for messages.

    Returns:
        The modules that must stay in eval mode, so that their statistics do not change either.

    Raises:
        UserError: if there is no such sub-module, or nothing is left to train.
    """
    if frozen == "backbone":
        heads = [f"{name}." for name in head_names(network, classes)]
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


def _classifier(network: Any) -> list[nn.Module]:
    """What timm calls the classifier; empty for other networks."""
    if not hasattr(network, "get_classifier"):
        return []
    found = network.get_classifier()
    return list(found) if isinstance(found, (tuple, list)) else [found]
