"""What the networks of the zoo share: stages and a head, numbers of channels, initial weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from torch import Tensor, nn


class Staged(nn.Module):
    """A network of stages, each of which ends in a feature map, and a head."""

    @abstractmethod
    def maps(self, images: Tensor) -> Iterator[Tensor]:
        """Images `(N, C, H, W)` to the feature map that each stage ends in."""

    @abstractmethod
    def forward_head(self, features: Tensor) -> Tensor:
        """The last feature map `(N, C, H, W)` to logits `(N, classes)`."""

    def forward_intermediates(
        self, images: Tensor, indices: Sequence[int] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The last feature map, and those at `indices`, or all: as networks of timm return them."""
        chosen, last = [], images
        for index, last in enumerate(self.maps(images)):
            if indices is None or index in indices:
                chosen.append(last)
        return last, chosen

    def forward(self, images: Tensor) -> Tensor:
        """Images `(N, C, H, W)` to logits `(N, classes)`."""
        return self.forward_head(self.forward_intermediates(images, [])[0])


def chain(values: Tensor, stages: Iterable[Callable[[Tensor], Tensor]]) -> Iterator[Tensor]:
    """The output of each stage, the input of which is the output of the one before."""
    for stage in stages:
        values = stage(values)
        yield values


def pooled(features: Tensor) -> Tensor:
    """The mean of each channel: `(N, C, H, W)` to `(N, C)`."""
    return features.mean(dim=(2, 3))


def scaled(channels: int, width: float) -> int:
    """A number of channels times a width: a multiple of 4, at least 4."""
    return max(4, round(channels * width / 4) * 4)


def to_eights(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and not below nine tenths of the number."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def convolution(
    inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """A convolution without bias; at stride 1, it keeps the size."""
    padding = kernel_size // 2
    return nn.Conv2d(inputs, outputs, kernel_size, stride, padding, groups=groups, bias=False)


def initialise(network: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """Draw the weights of convolutions as He et al. (2015) do, and set their biases to zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
