"""DenseNet-BC (Huang et al., 2017): each layer reads the outputs of all layers before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from meal.models.zoo.staged import Staged, convolution, initialise, pooled, scaled

DEPTHS = (8, 24, 24)
BOTTLENECK = 4  # channels between the two convolutions of a layer, in growth rates


class _Layer(nn.Module):
    """A 1x1 and a 3x3 convolution, each behind norm and activation."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = convolution(inputs, BOTTLENECK * growth, 1)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.conv2 = convolution(BOTTLENECK * growth, growth)

    def forward(self, values: Tensor) -> Tensor:
        inner = self.conv1(F.relu(self.norm1(values), inplace=True))
        outputs: Tensor = self.conv2(F.relu(self.norm2(inner), inplace=True))
        return outputs


class _Block(nn.Sequential):
    """Layers that add their outputs to the channels that they read."""

    def __init__(self, inputs: int, growth: int, depth: int) -> None:
        super().__init__()
        for index in range(depth):
            self.add_module(f"denselayer{index + 1}", _Layer(inputs + index * growth, growth))

    def forward(self, values: Tensor) -> Tensor:
        outputs = [values]
        for layer in self:
            outputs.append(layer(torch.cat(outputs, 1)))
        return torch.cat(outputs, 1)


class _Transition(nn.Module):
    """Halves the resolution, and the channels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = convolution(inputs, inputs // 2, 1)

    def forward(self, values: Tensor) -> Tensor:
        halved = self.conv(F.relu(self.norm(values), inplace=True))
        return F.avg_pool2d(halved, 2)


class DenseNet(Staged):
    """Blocks of dense layers with transitions between them."""

    def __init__(self, growth: int, depths: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        inputs = 2 * growth
        stem = convolution(channels, inputs)
        self.features = nn.Sequential()
        self.features.add_module("conv0", stem)
        self.features.add_module("norm0", nn.BatchNorm2d(inputs))
        for number, depth in enumerate(depths, start=1):
            self.features.add_module(f"denseblock{number}", _Block(inputs, growth, depth))
            inputs += depth * growth
            if number < len(depths):
                self.features.add_module(f"transition{number}", _Transition(inputs))
                inputs //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(inputs))
        self.classifier = nn.Linear(inputs, classes)
        initialise(self, mode="fan_in")
        initialise(stem)
        nn.init.zeros_(self.classifier.bias)

    def maps(self, images: Tensor) -> Iterator[Tensor]:
        for layer in self.features:
            if isinstance(layer, _Transition):
                yield images
            images = layer(images)
            if isinstance(layer, nn.BatchNorm2d):
                images = F.relu(images, inplace=True)
        yield images

    def forward_head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classifier(pooled(features))
        return logits


def densenet(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    """DenseNet with three blocks of 8, 24 and 24 layers and a growth rate of 40 at width 1."""
    return DenseNet(scaled(40, width), DEPTHS, channels, classes)
