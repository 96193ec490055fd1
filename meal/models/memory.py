"""Whether a network fits in memory: its tensors are counted on the meta device, not allocated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from meal.core.device import total_memory
from meal.core.errors import UserError
from meal.models.factory import build
from meal.models.spec import NetworkSpec

_COPIES = 4  # of the weights in training: themselves, gradients, momentum, the kept state
_PROBE = 2  # images; BatchNorm needs more than one in training


class _SkipInitialisation(TorchFunctionMode):
    """Skip in-place functions on meta tensors: they have no values, and `normal_` is slow there."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        in_place = name.endswith("_") and not name.startswith("_")
        if in_place and args and isinstance(args[0], Tensor) and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def check_memory(spec: NetworkSpec, device: torch.device, batch_size: int | None = None) -> None:
    """Check that a network fits in the memory of a device, before it is built.

    Networks that cannot run on the meta device are not checked.

    Args:
        spec: the network.
        device: where it will run.
        batch_size: of training, which also needs gradients and the outputs of all layers; None if
            it is not trained.

    Raises:
        UserError: with the estimate and the total memory.
    """
    try:
        with torch.device("meta"):
            with _SkipInitialisation():
                network = build(spec)
            needed = sum(value.nbytes for value in network.state_dict().values())
            if batch_size is not None:
                outputs = _output_bytes(network, torch.empty(_PROBE, *spec.shape)) // _PROBE
                needed = _COPIES * needed + batch_size * outputs
    except Exception:  # code outside the zoo may raise anything; building it will tell
        return
    memory = total_memory(device)
    if needed > memory:
        purpose = f"training it with batch_size {batch_size}" if batch_size else "it"
        lower = "width, batch_size or data.image_size" if batch_size else "width"
        raise UserError(
            f"{spec.arch} at width {spec.width:g} with images of {spec.image_size} pixels: "
            f"{purpose} needs about {needed / 2**30:.1f} GiB, but {device} has "
            f"{memory / 2**30:.1f} GiB of memory; lower {lower}"
        )


@torch.no_grad()
def _output_bytes(network: nn.Module, images: Tensor) -> int:
    """The bytes of the outputs of all innermost modules, which the backward pass needs."""
    total = 0

    def add(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal total
        total += output.nbytes if isinstance(output, Tensor) else 0

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(add)
    network.train()(images)
    return total
