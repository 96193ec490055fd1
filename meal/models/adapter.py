"""Conversion of the view that all networks share into the input that one network expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from meal.models.spec import InputSpec


class InputAdapter(nn.Module):
    """Changes normalisation, size and number of channels of images `(N, C, H, W)`.

    Attributes:
        inputs: the input that the network expects.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, inputs: InputSpec) -> None:
        super().__init__()
        self.inputs = inputs
        self._size, self._channels = inputs.size, inputs.channels
        mean, std, data_mean, data_std = (
            torch.tensor(values, dtype=torch.float64)
            for values in (inputs.mean, inputs.std, inputs.data_mean, inputs.data_std)
        )
        scale, shift = data_std / std, (data_mean - mean) / std
        # Constants from the specification, not state: they are in no weights file.
        self.register_buffer("scale", scale.float().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images as the pipeline normalises them to the network's own input."""
        images = images * self.scale + self.shift  # one channel is broadcast to three
        if images.shape[-1] != self._size:
            images = nn.functional.interpolate(
                images, (self._size, self._size), mode="bilinear", antialias=True
            )
        if images.shape[1] != self._channels:
            images = images.expand(-1, self._channels, -1, -1)
        return images.contiguous(memory_format=torch.channels_last)


class Adapted(nn.Module):
    """A network with its input adapter in front."""

    def __init__(self, adapter: InputAdapter, inner: nn.Module) -> None:
        super().__init__()
        self.adapter, self.inner = adapter, inner

    def forward(self, images: Tensor) -> Tensor:
        """Images `(N, C, H, W)` to logits `(N, classes)`."""
        logits: Tensor = self.inner(self.adapter(images))
        return logits
