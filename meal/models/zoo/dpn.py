"""DPN-92 (Chen et al., 2017): a residual and a dense path side by side, in one tensor."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from meal.models.zoo.staged import Staged, convolution, initialise

EPSILON = 1e-3  # of the norms
GROUPS = 32
# Of each stage: the blocks, their inner channels, the residual path, what a block adds to the dense
# path.
STAGES = ((3, 96, 256, 16), (4, 192, 512, 32), (20, 384, 1024, 24), (3, 768, 2048, 128))


class _Active(nn.Module):
    """Norm, activation, convolution."""

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs, eps=EPSILON)
        self.conv = convolution(inputs, outputs, kernel_size, stride, groups)

    def forward(self, values: Tensor) -> Tensor:
        outputs: Tensor = self.conv(F.relu(self.bn(values), inplace=True))
        return outputs


class _Dual(nn.Module):
    """Adds to the residual path, the first channels, and appends to the dense path, the others."""

    def __init__(
        self, inputs: int, inner: int, residual: int, grown: int, stride: int, first: bool
    ) -> None:
        super().__init__()
        self._residual = residual
        self._projection = f"c1x1_w_s{stride}" if first else None
        if self._projection:
            projection = _Active(inputs, residual + 2 * grown, 1, stride)
            self.add_module(self._projection, projection)
        self.c1x1_a = _Active(inputs, inner)
        self.c3x3_b = _Active(inner, inner, 3, stride, GROUPS)
        self.c1x1_c = _Active(inner, residual + grown)

    def forward(self, values: Tensor) -> Tensor:
        kept = self.get_submodule(self._projection)(values) if self._projection else values
        new = self.c1x1_c(self.c3x3_b(self.c1x1_a(values)))
        end = self._residual
        return torch.cat([kept[:, :end] + new[:, :end], kept[:, end:], new[:, end:]], dim=1)


class DPN(Staged):
    """Four stages behind one convolution; each later stage halves the resolution."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        inputs = 64
        stem = convolution(channels, inputs)
        initialise(stem)
        norm = nn.BatchNorm2d(inputs, eps=EPSILON)
        self.features = nn.Sequential()
        self.features.add_module("conv1_1", nn.Sequential(OrderedDict(conv=stem, bn=norm)))
        self._ends = []
        for number, (depth, inner, residual, grown) in enumerate(STAGES, start=2):
            for index in range(1, depth + 1):
                first = index == 1
                stride = 2 if first and number > 2 else 1
                block = _Dual(inputs, inner, residual, grown, stride, first)
                self.features.add_module(f"conv{number}_{index}", block)
                inputs = residual + 3 * grown if first else inputs + grown
            self._ends.append(f"conv{number}_{depth}")
        last = nn.BatchNorm2d(inputs, eps=EPSILON)
        self.features.add_module("conv5_bn_ac", nn.Sequential(OrderedDict(bn=last)))
        self.classifier = nn.Conv2d(inputs, classes, 1)

    def maps(self, images: Tensor) -> Iterator[Tensor]:
        for name, layer in list(self.features.named_children())[:-1]:
            images = layer(images)
            if name == "conv1_1":
                images = F.relu(images, inplace=True)
            elif name in self._ends:
                yield images

    def forward_head(self, features: Tensor) -> Tensor:
        active = F.relu(self.features[-1](features))
        logits: Tensor = self.classifier(active.mean(dim=(2, 3), keepdim=True))
        return logits.flatten(1)


def dpn92(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    """DPN-92."""
    return DPN(channels, classes)
