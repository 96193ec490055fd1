"""Operations on the pixels of a crop, drawn by (seed, image, view): RandAugment, random erasing."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from meal.core.seeds import hash_integers, mix, uniform

Operation = Callable[[Tensor, float], Tensor]

_AUGMENT, _ERASE = 1, 2  # in the hash: each part has draws of its own
_MOST = 30  # the largest magnitude


@dataclass(frozen=True)
class RandAugment:
    """RandAugment (Cubuk et al., 2020), with torchvision's operations and ranges.

    Attributes:
        seed: of the views.
        layers: the number of operations on an image; 0 for none.
        magnitude: their strength, from 0 to 30.
    """

    seed: int = 0
    layers: int = 0
    magnitude: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What identifies the operations; empty if there are none."""
        return {"randaugment": self.layers, "magnitude": self.magnitude} if self.layers else {}

    def __call__(self, pixels: Tensor, rows: Tensor, view: int) -> Tensor:
        """Change pixels `(B, H, W, C)`, from 0 to 255, of images `(B,)`; the result is uint8.

        Images with the same operation are changed in one call.
        """
        if not self.layers:
            return pixels
        if pixels.dtype != torch.uint8:
            pixels = pixels.round().clamp(0, 255).to(torch.uint8)
        images = pixels.permute(0, 3, 1, 2).contiguous()
        key = hash_integers(self.seed, rows, view, _AUGMENT)
        operations, strength = _operations(), self.magnitude / _MOST
        for layer in range(self.layers):
            drawn = mix(key, 2 * layer + 1) % len(operations)
            negative = mix(key, 2 * layer + 2) & 1
            codes = 2 * drawn + negative
            for code in codes.unique().tolist():
                chosen = (codes == code).nonzero()[:, 0].to(images.device, non_blocking=True)
                amount = -strength if code % 2 else strength
                images[chosen] = operations[code // 2](images[chosen], amount)
        return images.permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Erasing:
    """Random erasing (Zhong et al., AAAI 2020): a rectangle of one random colour.

    It covers 2% to 33% of the image, and its sides have a ratio of 0.3 to 3.3.

    Attributes:
        seed: of the views.
        probability: that an image is changed.
    """

    seed: int = 0
    probability: float = 0.0

    @property
    def identity(self) -> dict[str, Any]:
        """What identifies the rectangles; empty if there are none."""
        return {"erase": self.probability} if self.probability else {}

    def __call__(self, pixels: Tensor, rows: Tensor, view: int) -> Tensor:
        """Paint a rectangle into pixels `(B, H, W, C)`, from 0 to 255, of images `(B,)`."""
        if not self.probability:
            return pixels
        side, channels = pixels.shape[1], pixels.shape[3]
        key = hash_integers(self.seed, rows, view, _ERASE)
        area = side * side * (0.02 + 0.31 * uniform(key, 1))
        ratio = 0.3 * (3.3 / 0.3) ** uniform(key, 2)
        height, width = (
            values.sqrt().round().clamp(1, side) for values in (area * ratio, area / ratio)
        )
        box = box_mask(
            (uniform(key, 3) * (side - height + 1)).floor(),
            (uniform(key, 4) * (side - width + 1)).floor(),
            height,
            width,
            side,
        )
        box &= (uniform(key, 5) < self.probability)[:, None, None]
        streams = torch.arange(10, 10 + channels)
        colour = (256 * uniform(mix(key[:, None], streams), 6)).floor().to(pixels.dtype)
        device = pixels.device
        return torch.where(
            box[..., None].to(device, non_blocking=True),
            colour[:, None, None, :].to(device, non_blocking=True),
            pixels,
        )


def box_mask(top: Tensor, left: Tensor, height: Tensor, width: Tensor, side: int) -> Tensor:
    """Which pixels `(B, side, side)` lie in rectangles, given by tensors `(B,)`."""
    place = torch.arange(side)
    rows = (place >= top[:, None]) & (place < (top + height)[:, None])
    columns = (place >= left[:, None]) & (place < (left + width)[:, None])
    return rows[:, :, None] & columns[:, None, :]


@functools.cache
def _operations() -> tuple[Operation, ...]:
    """Functions of images, uint8 `(B, C, H, W)`, and a strength from -1 to 1."""
    from torchvision.transforms.v2 import functional as V

    def affine(images: Tensor, translate: tuple[int, int], shear: tuple[float, float]) -> Tensor:
        changed: Tensor = V.affine(
            images, 0.0, list(translate), 1.0, list(shear), center=[0.0, 0.0]
        )
        return changed

    def degrees(strength: float) -> float:
        return math.degrees(math.atan(0.3 * strength))

    def pixels(strength: float, images: Tensor) -> int:
        return int(150 / 331 * images.shape[-1] * strength)

    return (
        lambda images, by: images,
        lambda images, by: affine(images, (0, 0), (degrees(by), 0.0)),
        lambda images, by: affine(images, (0, 0), (0.0, degrees(by))),
        lambda images, by: affine(images, (pixels(by, images), 0), (0.0, 0.0)),
        lambda images, by: affine(images, (0, pixels(by, images)), (0.0, 0.0)),
        lambda images, by: V.rotate(images, 30 * by),
        lambda images, by: V.adjust_brightness(images, 1 + 0.9 * by),
        lambda images, by: V.adjust_saturation(images, 1 + 0.9 * by),
        lambda images, by: V.adjust_contrast(images, 1 + 0.9 * by),
        lambda images, by: V.adjust_sharpness(images, 1 + 0.9 * by),
        lambda images, by: V.posterize(images, round(8 - 4 * abs(by))),
        lambda images, by: V.solarize(images, 255 * (1 - abs(by))),
        lambda images, by: V.autocontrast(images),
        lambda images, by: V.equalize(images),
    )
