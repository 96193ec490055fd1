"""A way around convolutions that end the process on some CPUs."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

_LANES = 16  # channels that AVX-512 takes at once


class _Every:
    """A hook before a module: it sees only one of so many pixels."""

    def __init__(self, stride: tuple[int, ...]) -> None:
        self._rows, self._columns = stride

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor]:
        return (inputs[0][:, :, :: self._rows, :: self._columns],)


def subsample_first(network: nn.Module) -> None:
    """Let strided 1x1 convolutions of few channels skip pixels before and not within them.

    They yield the same. oneDNN, as torch 2.14.1 has it, writes beyond its memory in their backward
    pass on CPUs with AVX-512, where channels do not fill its registers: seen with 4 channels and
    batches of odd size, and with 8 from 48x48 pixels on. The process then ends by a signal.
    """
    for module in network.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.in_channels % _LANES
            and module.kernel_size == (1, 1)
            and module.stride != (1, 1)
            and module.padding == (0, 0)
        ):
            module.register_forward_pre_hook(_Every(module.stride))
            module.stride = (1, 1)
