"""A workaround for convolutions that crash the process on some CPUs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

_LANES = 16  # float32 channels in an AVX-512 register


class _Subsample:
    """A hook that gives a module only every n-th row and column of its input."""

    def __init__(self, stride: tuple[int, ...]) -> None:
        self._rows, self._columns = stride

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor]:
        return (inputs[0][:, :, :: self._rows, :: self._columns],)


def subsample_first(network: nn.Module) -> None:
    """Replace the stride of 1x1 convolutions with few channels by subsampling in front of them.

    The result is the same. In torch 2.14.1, oneDNN writes out of bounds in the backward pass of
    such convolutions on CPUs with AVX-512 if the channels do not fill its registers, and the
    process crashes: with 4 channels and odd batch sizes, and with 8 channels from 48x48 pixels up.
    """
    for module in network.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.in_channels % _LANES
            and module.kernel_size == (1, 1)
            and module.stride != (1, 1)
            and module.padding == (0, 0)
        ):
            module.register_forward_pre_hook(_Subsample(module.stride))
            module.stride = (1, 1)
