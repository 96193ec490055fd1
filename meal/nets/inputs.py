"""Gives a network the input that belongs to it, from the one view that all networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from meal.nets.spec import InputSpec


class InputAdapter(nn.Module):
    """Another normalisation, another size, grey repeated as colour: `(N, C, H, W)` to the same."""

    scale: Tensor
    shift: Tensor

    def __init__(self, inputs: InputSpec) -> None:
        super().__init__()
        self._size, self._channels = inputs.size, inputs.channels
        mean, deviation, data_mean, data_deviation = (
            torch.tensor(values, dtype=torch.float64)
            for values in (inputs.mean, inputs.deviation, inputs.data_mean, inputs.data_deviation)
        )
        scale, shift = data_deviation / deviation, (data_mean - mean) / deviation
        # Constants of the specification, no state: they are in no file of weights.
        self.register_buffer("scale", scale.float().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images normalised by the training split, to what the network was made for."""
        images = images * self.scale + self.shift  # one channel becomes as many as there are
        if images.shape[-1] != self._size:
            images = nn.functional.interpolate(
                images, (self._size, self._size), mode="bilinear", antialias=True
            )
        if images.shape[1] != self._channels:
            images = images.expand(-1, self._channels, -1, -1)
        return images.contiguous(memory_format=torch.channels_last)


class Adapted(nn.Module):
    """A network behind its input adapter."""

    def __init__(self, adapter: InputAdapter, inner: nn.Module) -> None:
        super().__init__()
        self.adapter, self.inner = adapter, inner

    def forward(self, images: Tensor) -> Tensor:
        """Images `(N, C, H, W)` to logits `(N, classes)`."""
        logits: Tensor = self.inner(self.adapter(images))
        return logits
