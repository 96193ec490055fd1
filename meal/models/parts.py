"""The parts of a network: what is behind its input adapter, and sub-modules by name."""

from __future__ import annotations

from torch import nn

from meal.core.errors import UserError
from meal.models.adapter import Adapted


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
