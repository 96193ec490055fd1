"""MobileNet (Howard et al., 2017): each 3x3 convolution is one per channel, then one of 1x1."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional as F

from meal.models.zoo.staged import Staged, chain, convolution, pooled, to_eights

STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))  # channels and blocks


class _Separable(nn.Module):
    """A 3x3 convolution of each channel, and a 1x1 convolution across channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = convolution(inputs, inputs, 3, stride, inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv_pw = convolution(inputs, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, values: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv_dw(values)), inplace=True)
        return F.relu(self.bn2(self.conv_pw(inner)), inplace=True)


class MobileNet(Staged):
    """Five stages; each later one halves the resolution."""

    def __init__(self, channels: int, classes: int, width: float) -> None:
        super().__init__()
        inputs = to_eights(32 * width)
        self.conv_stem, self.bn1 = convolution(channels, inputs), nn.BatchNorm2d(inputs)
        self.blocks = nn.Sequential()
        for number, (planes, depth) in enumerate(STAGES):
            outputs, stage = to_eights(planes * width), nn.Sequential()
            for index in range(depth):
                stride = 2 if number and not index else 1
                stage.append(_Separable(inputs, outputs, stride))
                inputs = outputs
            self.blocks.append(stage)
        self.classifier = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        bound = 1 / math.sqrt(classes)
        nn.init.uniform_(self.classifier.weight, -bound, bound)
        nn.init.zeros_(self.classifier.bias)

    def maps(self, images: Tensor) -> Iterator[Tensor]:
        return chain(F.relu(self.bn1(self.conv_stem(images)), inplace=True), self.blocks)

    def forward_head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classifier(pooled(features))
        return logits


def mobilenet(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    """MobileNet."""
    return MobileNet(channels, classes, width)
