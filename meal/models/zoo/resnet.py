"""ResNet-18 (He et al., 2016a), ResNeXt-29 (Xie et al., 2017), PreAct ResNet-18 (He et al., 2016b).

The stem is one convolution of stride 1, without pooling.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from meal.models.zoo.staged import (
    Staged,
    chain,
    convolution,
    initialise,
    pooled,
    scaled,
    to_eights,
)

PLANES = (64, 128, 256, 512)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """A projection, where channels or resolution change."""
    if stride == 1 and inputs == outputs:
        return None
    projection = convolution(inputs, outputs, 1, stride)
    return nn.Sequential(projection, nn.BatchNorm2d(outputs))


class _Basic(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, planes, stride=stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = convolution(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)
        self.outputs = planes
        nn.init.zeros_(self.bn2.weight)  # a block starts as its shortcut

    def forward(self, values: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(values)), inplace=True)
        inner = self.bn2(self.conv2(inner))
        inner += values if self.downsample is None else self.downsample(values)
        return F.relu(inner, inplace=True)


class _Bottleneck(nn.Module):
    """A grouped 3x3 convolution between two of 1x1: the block of ResNeXt-29, 2x64d."""

    _GROUPS, _EXPANSION = 2, 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        width, outputs = planes * self._GROUPS, planes * self._EXPANSION
        self.conv1 = convolution(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride, self._GROUPS)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)
        self.outputs = outputs
        nn.init.zeros_(self.bn3.weight)

    def forward(self, values: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(values)), inplace=True)
        inner = F.relu(self.bn2(self.conv2(inner)), inplace=True)
        inner = self.bn3(self.conv3(inner))
        inner += values if self.downsample is None else self.downsample(values)
        return F.relu(inner, inplace=True)


class ResNet(Staged):
    """Stages of residual blocks behind one convolution; each later stage halves the resolution."""

    def __init__(
        self,
        block: Callable[[int, int, int], _Basic | _Bottleneck],
        depths: Sequence[int],
        planes: Sequence[int],
        stem: nn.Conv2d,
        classes: int,
    ) -> None:
        super().__init__()
        inputs = stem.out_channels
        self.conv1, self.bn1 = stem, nn.BatchNorm2d(inputs)
        self._names = [f"layer{number}" for number in range(1, len(depths) + 1)]
        for name, depth, width in zip(self._names, depths, planes, strict=True):
            stage: list[_Basic | _Bottleneck] = []
            for index in range(depth):
                stride = 2 if index == 0 and name != "layer1" else 1
                stage.append(block(inputs, width, stride))
                inputs = stage[-1].outputs
            self.add_module(name, nn.Sequential(*stage))
        self.fc = nn.Linear(inputs, classes)
        initialise(self)

    def maps(self, images: Tensor) -> Iterator[Tensor]:
        stem = F.relu(self.bn1(self.conv1(images)), inplace=True)
        return chain(stem, map(self.get_submodule, self._names))

    def forward_head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(pooled(features))
        return logits


class _PreAct(nn.Module):
    """Two 3x3 convolutions, each behind norm and activation."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != planes:
            self.downsample = nn.Sequential(
                OrderedDict(conv=convolution(inputs, planes, 1, stride))
            )
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = convolution(inputs, planes, stride=stride)
        self.norm2 = nn.BatchNorm2d(planes)
        self.conv2 = convolution(planes, planes)

    def forward(self, values: Tensor) -> Tensor:
        active = F.relu(self.norm1(values), inplace=True)
        shortcut = values if self.downsample is None else self.downsample(active)
        inner = F.relu(self.norm2(self.conv1(active)), inplace=True)
        changed: Tensor = self.conv2(inner)
        return changed + shortcut


class PreActResNet(Staged):
    """Four stages of two blocks; norm and activation come before the convolutions."""

    def __init__(self, planes: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        inputs = planes[0]
        self.stem = nn.Sequential(convolution(channels, inputs))
        self.stages = nn.Sequential()
        for number, width in enumerate(planes):
            first = _PreAct(inputs, width, 2 if number else 1)
            blocks = nn.Sequential(first, _PreAct(width, width, 1))
            self.stages.append(nn.Sequential(OrderedDict(blocks=blocks)))
            inputs = width
        self.norm = nn.BatchNorm2d(inputs)
        classifier = nn.Conv2d(inputs, classes, 1)
        self.head = nn.Sequential(OrderedDict(fc=classifier))
        initialise(self)
        nn.init.normal_(classifier.weight, std=0.01)

    def maps(self, images: Tensor) -> Iterator[Tensor]:
        return chain(self.stem(images), self.stages)

    def forward_head(self, features: Tensor) -> Tensor:
        active = F.relu(self.norm(features), inplace=True)
        logits: Tensor = self.head(active.mean(dim=(2, 3), keepdim=True))
        return logits.flatten(1)


def resnet18(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    """ResNet-18."""
    planes = [scaled(number, width) for number in PLANES]
    return ResNet(_Basic, (2, 2, 2, 2), planes, convolution(channels, planes[0]), classes)


def resnext29(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    """ResNeXt-29 with two groups of 64 channels."""
    return ResNet(_Bottleneck, (3, 3, 3), PLANES[:3], convolution(channels, 64, 1), classes)


def preact_resnet18(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    """ResNet-18 with norm and activation before the convolutions."""
    return PreActResNet([to_eights(scaled(n, width)) for n in PLANES], channels, classes)
