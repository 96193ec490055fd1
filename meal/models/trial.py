"""Networks that are looked at, not used: as few of their values as possible are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from meal.models.factory import build
from meal.models.spec import NetworkSpec
from meal.models.zoo.registry import ZOO

META, CPU = torch.device("meta"), torch.device("cpu")
# Up to this many pixels per side and bytes of weights, a network of the zoo is cheap to run.
_SMALL_IMAGE, _SMALL_WEIGHTS = 64, 2**28
Found = TypeVar("Found")


class SkipInitialisation(TorchFunctionMode):
    """Skip in-place functions on meta tensors: they have no values, and `normal_` is slow there."""

    def __torch_function__(  # noqa: D105
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        in_place = name.endswith("_") and not name.startswith("_")
        target = args[0] if args else (kwargs or {}).get("tensor")  # so named in torch.nn.init
        if in_place and isinstance(target, Tensor) and target.is_meta:
            return target
        return func(*args, **(kwargs or {}))


def without_values(spec: NetworkSpec) -> nn.Module:
    """A network on the meta device, where tensors have shapes only."""
    with META, SkipInitialisation():
        return build(spec)


def trial(spec: NetworkSpec) -> tuple[nn.Module, torch.device]:
    """A network to run once, and the device to do that on: the CPU if it is small, else meta.

    Running a network on the meta device imports torch's compiler: 1.6 CPU seconds. So do timm and
    torchvision, so a network that is not of the zoo has nothing to gain.
    """
    network = without_values(spec)
    small = spec.inner_shape[-1] <= _SMALL_IMAGE and nbytes(network) <= _SMALL_WEIGHTS
    return (build(spec), CPU) if small and spec.arch in ZOO else (network, META)


def examine(spec: NetworkSpec, look: Callable[[nn.Module], Found]) -> Found:
    """What `look` finds: on the meta device, or with values if the network's code needs them.

    Args:
        spec: the network.
        look: from the network to the result; the tensors it creates are on the network's device.
    """
    try:
        network = without_values(spec)
        with META:
            return look(network)
    except Exception:  # code outside the zoo may raise anything
        return look(build(spec))


def nbytes(network: nn.Module) -> int:
    """The bytes of a network's state."""
    return sum(value.nbytes for value in network.state_dict().values())
