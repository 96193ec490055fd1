"""VGG (Simonyan and Zisserman, 2015) with batch normalisation and one linear layer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from meal.models.zoo.staged import Staged, initialise, pooled, scaled

PLANES = (64, 128, 256, 512, 512)


class VGG(Staged):
    """Five stages of 3x3 convolutions; a maximum over 2x2 positions ends each."""

    def __init__(
        self, depths: Sequence[int], channels: int, classes: int, width: float, image_size: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self._ends = []  # of the stages, in front of their pooling
        for number, (planes, depth) in enumerate(zip(PLANES, depths, strict=True), start=1):
            outputs = scaled(planes, width)
            for _ in range(depth):
                layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs)]
                layers += [nn.ReLU(inplace=True)]
                channels = outputs
            self._ends.append(len(layers))
            if image_size >> number:  # omit a pool that would leave no position
                layers.append(nn.MaxPool2d(2))
        self._ends.append(len(layers))
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(OrderedDict(fc=nn.Linear(channels, classes)))
        initialise(self)

    def maps(self, images: Tensor) -> Iterator[Tensor]:
        for number, layer in enumerate(self.features, start=1):
            images = layer(images)
            if number in self._ends:
                yield images

    def forward_head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(pooled(features))
        return logits


def vgg11(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    """VGG-11."""
    return VGG((1, 1, 2, 2, 2), channels, classes, width, image_size)


def vgg16(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    """VGG-16."""
    return VGG((2, 2, 3, 3, 3), channels, classes, width, image_size)


def vgg19(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    """VGG-19."""
    return VGG((2, 2, 4, 4, 4), channels, classes, width, image_size)
