"""How an objective runs: compiled, or in several ranks.

Each rank computes its part of a batch, and all compute the same loss of the whole batch.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from meal.core import ranks
from meal.core.collectives import gather, gather_statistics
from meal.core.errors import UserError


def parallel(objective: nn.Module, skips_parameters: bool) -> nn.Module:
    """The objective with gradients that are the mean over ranks; itself if there is one rank.

    Args:
        objective: it uses `of_whole_batch`.
        skips_parameters: whether a step may leave parameters without a gradient.
    """
    if ranks.size() == 1:
        return objective
    return nn.parallel.DistributedDataParallel(
        objective,
        find_unused_parameters=skips_parameters,
        static_graph=not skips_parameters,
        gradient_as_bucket_view=True,
    )


def compile_objective(objective: nn.Module, mode: str) -> None:
    """Compile the objective's forward pass, in place.

    Raises:
        UserError: if that is impossible here.
    """
    if ranks.size() > 1:
        raise UserError(
            f"compile={mode!r}: {ranks.size()} processes exchange values inside the forward pass; "
            "allowed: none, or runtime.processes: 1"
        )
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(f"compile={mode!r}: it needs {compiler}; install it, or set none")
    objective.compile(mode=mode)


def of_whole_batch(network: nn.Module, images: Tensor) -> Any:
    """A network's outputs for a whole batch, from this rank's part `(n, C, H, W)` of the images.

    BatchNorm uses the statistics of the whole batch. Layers that draw, such as dropout, draw in
    each rank for its part.
    """
    if ranks.size() == 1:
        return network(images)
    with _WholeBatchNorm():
        outputs = network(images)
    return tree_map(gather, outputs)


class _WholeBatchNorm(TorchFunctionMode):
    """Computes BatchNorm with the statistics of all ranks, on any device and in any subclass."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.batch_norm and kwargs.get("training"):
            return _batch_norm(*args, **kwargs)
        return function(*args, **kwargs)


def _batch_norm(
    values: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """`F.batch_norm` in training, of values `(n, C, ...)` that are an equal part in each rank."""
    over = [dim for dim in range(values.ndim) if dim != 1]
    wide = values.to(torch.promote_types(values.dtype, torch.float32))  # not bfloat16
    var, mean = torch.var_mean(wide, over, correction=0)
    means, variances = gather_statistics(torch.stack([mean, var])).unbind(1)
    mean = means.mean(0)
    var = (variances + (means - mean).square()).mean(0)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            count = ranks.size() * values.numel() // values.shape[1]
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * (count / (count - 1)), momentum)
    shape = [1, -1] + [1] * (values.ndim - 2)
    scale = (var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return (wide * scale.view(shape) + shift.view(shape)).to(values.dtype)
