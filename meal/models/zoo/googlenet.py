"""GoogLeNet (Szegedy et al., 2015) with batch normalisation, for small images.

As in the official implementation of MEAL, the stem is one 3x3 convolution, and the third branch of
an Inception block has two 3x3 convolutions in place of one of 5x5.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from meal.models.zoo.staged import Staged, convolution, pooled

# By stage: the channels of the branches of each block. 1x1; 3x3, reduced and full; 5x5, likewise;
# pooling.
STAGES = (
    {"3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64)},
    {
        "4a": (192, 96, 208, 16, 48, 64),
        "4b": (160, 112, 224, 24, 64, 64),
        "4c": (128, 128, 256, 24, 64, 64),
        "4d": (112, 144, 288, 32, 64, 64),
        "4e": (256, 160, 320, 32, 128, 128),
    },
    {"5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128)},
)
STEM = 192


class _Normed(nn.Module):
    """Convolution, norm, activation."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 1) -> None:
        super().__init__()
        self.conv = convolution(inputs, outputs, kernel_size)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, values: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(values)), inplace=True)


class _Inception(nn.Module):
    """Four branches side by side."""

    def __init__(self, inputs: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        single, reduced3, full3, reduced5, full5, projected = channels
        self.branch1 = _Normed(inputs, single)
        self.branch2 = nn.Sequential(_Normed(inputs, reduced3), _Normed(reduced3, full3, 3))
        self.branch3 = nn.Sequential(
            _Normed(inputs, reduced5), _Normed(reduced5, full5, 3), _Normed(full5, full5, 3)
        )
        pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.branch4 = nn.Sequential(pool, _Normed(inputs, projected))

    def forward(self, values: Tensor) -> Tensor:
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(values) for branch in branches], 1)


class GoogLeNet(Staged):
    """Three stages of Inception blocks; a maximum over 3x3 positions separates them."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = _Normed(channels, STEM, 3)
        inputs = STEM
        for stage in STAGES:
            for name, branches in stage.items():
                self.add_module(f"inception{name}", _Inception(inputs, branches))
                inputs = sum(branches[index] for index in (0, 2, 4, 5))
        self.fc = nn.Linear(inputs, classes)

    def maps(self, images: Tensor) -> Iterator[Tensor]:
        values: Tensor = self.conv1(images)
        for number, stage in enumerate(STAGES):
            if number:
                values = F.max_pool2d(values, 3, stride=2, padding=1)
            for name in stage:
                values = self.get_submodule(f"inception{name}")(values)
            yield values

    def forward_head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(pooled(features))
        return logits


def googlenet(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    """GoogLeNet."""
    return GoogLeNet(channels, classes)
