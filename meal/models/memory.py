"""Whether a network fits in memory: its weights are counted on the meta device, not allocated."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from meal.core.device import total_memory
from meal.core.errors import UserError
from meal.models.spec import NetworkSpec
from meal.models.trial import META, nbytes, trial, without_values

Precision = Literal["float32", "bfloat16"]

_COPIES = 4  # of the weights in training: themselves, gradients, momentum, the kept state
_PROBE = 2  # images; BatchNorm needs more than one in training


def check_memory(
    spec: NetworkSpec,
    device: torch.device,
    batch_size: int | None = None,
    precision: Precision = "float32",
) -> None:
    """Check that a network fits in the memory of a device, before it is built.

    What it needs is counted without workspace: more will be used. Networks that cannot be built on
    the meta device are not checked.

    Args:
        spec: the network.
        device: where it will run.
        batch_size: of training, which also needs gradients and what the backward pass reads; None
            if it is not trained.
        precision: of the layers' outputs in training.

    Raises:
        UserError: with the estimate and the total memory.
    """
    try:
        network, where = trial(spec) if batch_size else (without_values(spec), META)
        needed = nbytes(network)
        if batch_size is not None:
            with where:
                outputs = _saved_bytes(network, torch.zeros(_PROBE, *spec.shape)) // _PROBE
            if precision == "bfloat16":
                outputs //= 2
            needed = _COPIES * needed + batch_size * outputs
    except Exception:  # code outside the zoo may raise anything; building it will tell
        return
    memory = total_memory(device)
    if needed > memory:
        purpose = f"training it with batch_size {batch_size}" if batch_size else "it"
        lower = "width, batch_size or data.image_size" if batch_size else "width"
        raise UserError(
            f"{spec.arch} at width {spec.width:g} with images of {spec.image_size} pixels: "
            f"{purpose} needs at least {needed / 2**30:.1f} GiB, but {device} has "
            f"{memory / 2**30:.1f} GiB of memory; lower {lower}"
        )


def _saved_bytes(network: nn.Module, images: Tensor) -> int:
    """The bytes that are kept for the backward pass, without the weights."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        return tensor

    network.train()
    with (
        torch.random.fork_rng(devices=[]),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        output = network(images)
    for parameter in network.parameters():
        saved.pop(parameter.untyped_storage()._cdata, None)
    del output
    return sum(saved.values())
