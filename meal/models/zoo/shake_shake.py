"""Shake-Shake networks of 26 layers (Gastaldi, 2017): two residual branches, mixed at random.

In training, a random weight per image mixes the branches in the forward pass, and another one in
the backward pass; in eval mode both weights are a half.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from meal.models.zoo.staged import Staged, chain, initialise, pooled, scaled


class _Mix(torch.autograd.Function):
    """Weight `alpha` for the first branch in the forward pass, `beta` in the backward pass."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        ctx.save_for_backward(beta)
        return alpha * first + (1 - alpha) * second

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (beta,) = ctx.saved_tensors
        return beta * gradient, (1 - beta) * gradient, None, None


def mix(first: Tensor, second: Tensor, training: bool) -> Tensor:
    """Mix two branches `(N, C, H, W)`: their mean, or in training a random mixture per image."""
    if not training:
        return 0.5 * (first + second)
    weights = torch.rand(2, len(first), 1, 1, 1, device=first.device, dtype=first.dtype)
    mixed: Tensor = _Mix.apply(first, second, weights[0], weights[1])
    return mixed


class _Shortcut(nn.Module):
    """The shortcut where channels or resolution change: two paths, one shifted by one pixel."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self._stride = stride
        self.straight = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.shifted = nn.Conv2d(inputs, outputs - outputs // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, values: Tensor) -> Tensor:
        values = F.relu(values)
        step = self._stride
        straight = self.straight(values[:, :, ::step, ::step])
        shifted = self.shifted(F.pad(values, (-1, 1, -1, 1))[:, :, ::step, ::step])
        normed: Tensor = self.norm(torch.cat([straight, shifted], dim=1))
        return normed


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _branch(inputs, outputs, stride)
        self.second = _branch(inputs, outputs, stride)
        changes = inputs != outputs or stride != 1
        self.skip = _Shortcut(inputs, outputs, stride) if changes else nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        mixed = mix(self.first(values), self.second(values), self.training)
        skipped: Tensor = self.skip(values)
        return skipped + mixed


def _branch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
    )


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    blocks = [_Block(inputs, outputs, stride)]
    return nn.Sequential(*blocks, *(_Block(outputs, outputs, 1) for _ in range(3)))


class ShakeShake(Staged):
    """Three stages of four blocks: `planes` channels in the first, doubled in each later one."""

    def __init__(self, channels: int, classes: int, planes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        )
        self.stage1 = _stage(16, planes, stride=1)
        self.stage2 = _stage(planes, 2 * planes, stride=2)
        self.stage3 = _stage(2 * planes, 4 * planes, stride=2)
        self.head = nn.Linear(4 * planes, classes)
        initialise(self)

    def maps(self, images: Tensor) -> Iterator[Tensor]:
        return chain(self.stem(images), (self.stage1, self.stage2, self.stage3))

    def forward_head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(pooled(F.relu(features)))
        return logits


def shake_shake26_2x32d(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    """Two branches of 32 channels in the first stage."""
    return ShakeShake(channels, classes, scaled(32, width))


def shake_shake26_2x96d(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    """Two branches of 96 channels in the first stage."""
    return ShakeShake(channels, classes, scaled(96, width))
