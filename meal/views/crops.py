"""Crops: the part of an image that a view shows, as a pure function of (seed, image, view).

A family of crops draws the parameters of a view for many images at once, and gathers their pixels
in one operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from meal.core.seeds import hash_integers, mix, uniform

Parameters = tuple[Tensor, ...]


class Crops(Protocol):
    """All crops that one configuration can give."""

    @property
    def identity(self) -> dict[str, Any]:
        """What identifies these crops: equal values mean equal crops."""

    def parameters(self, images: Tensor, view: int, size: tuple[int, int]) -> Parameters:
        """Parameters, each `(N,)`, of a view of images `(N,)`, which have `size` (H, W)."""

    def source(self, images: Tensor) -> Tensor:
        """Prepare uint8 images `(N, H, W, C)` for `take`."""

    def take(self, source: Tensor, images: Tensor, parameters: Parameters, size: int) -> Tensor:
        """Pixels `(B, size, size, C)`, from 0 to 255, of a view of images `(B,)`."""


@dataclass(frozen=True)
class PaddedCrops:
    """Crops of the zero-padded image, and their mirror images (MEAL's CIFAR augmentation).

    An image has `(2 * padding + 1)^2` of them, twice as many with flips. They are enumerated
    without replacement, in a different order for each image, by the swap-or-not shuffle (Hoang,
    Morris and Rogaway, CRYPTO 2012): a bijection of any number of members, computed for one view
    without the others. View indices beyond the family start a new order.

    Attributes:
        size: the number of views of an image; `configure` writes it into the slice.
    """

    seed: int
    crop_padding: int
    flip: bool
    size: int

    _ROUNDS = 24  # about 3 * log2(162)

    @property
    def identity(self) -> dict[str, Any]:
        """What identifies these views."""
        return {
            "crop": "padded",
            "seed": self.seed,
            "crop_padding": self.crop_padding,
            "flip": self.flip,
        }

    def parameters(self, images: Tensor, view: int, size: tuple[int, int]) -> Parameters:
        """Row offset and column offset, from 0 to `2 * crop_padding`, and flip."""
        turn, place = divmod(view, self.size)
        key = hash_integers(self.seed, images, turn)
        member = torch.full_like(images, place)
        for step in range(self._ROUNDS):
            shift = mix(key, 2 * step + 1) % self.size
            partner = (shift + self.size - member) % self.size
            coin = mix(key + torch.maximum(member, partner), 2 * step + 2) & 1
            member = torch.where(coin == 1, partner, member)
        side = 2 * self.crop_padding + 1
        offset = member % side**2
        return offset // side, offset % side, member >= side**2

    def source(self, images: Tensor) -> Tensor:
        """The images padded with zeros, followed by their mirror images if views are flipped."""
        padding = self.crop_padding
        padded = F.pad(images, (0, 0, padding, padding, padding, padding))
        return torch.cat([padded, padded.flip(2)]) if self.flip else padded

    def take(self, source: Tensor, images: Tensor, parameters: Parameters, size: int) -> Tensor:
        """Gather whole rows of uint8 pixels, without an index for each pixel."""
        top, left, flip = parameters
        count, full_height, full_width, channels = source.shape
        border = 2 * self.crop_padding
        if self.flip:  # a mirrored crop is a crop of the mirror image, offset from its other side
            images = images + flip * (count // 2)
            left = torch.where(flip, border - left, left)
        row = top[:, None] + torch.arange(size, device=source.device)
        first = (images[:, None] * full_height + row) * full_width + left[:, None]
        # View every run of `size` pixels in memory as a row of its own, without a copy.
        runs = source.numel() // channels - size + 1
        rows = source.as_strided((runs, size * channels), (channels, 1))
        pixels = rows.index_select(0, first.flatten())
        return pixels.view(len(images), size, size, channels)


@dataclass(frozen=True)
class ResizedCrops:
    """Random-resized-crops and their mirror images (Szegedy et al., 2015), for larger images.

    Like torchvision's `RandomResizedCrop`: a fraction of the area between `low` and `high` and an
    aspect ratio between 3/4 and 4/3; the first of ten draws that fits, else the largest central
    crop; bilinear resizing. The number of views has no limit: each view index is a new draw.
    """

    seed: int
    low: float
    high: float
    flip: bool

    _TRIES = 10

    @property
    def identity(self) -> dict[str, Any]:
        """What identifies these views."""
        return {
            "crop": "resized",
            "seed": self.seed,
            "scale": [self.low, self.high],
            "flip": self.flip,
        }

    def parameters(self, images: Tensor, view: int, size: tuple[int, int]) -> Parameters:
        """Top, left, height and width of the crop in pixels, and flip."""
        full_height, full_width = size
        key = hash_integers(self.seed, images, view)
        tries = mix(key[:, None], torch.arange(1, self._TRIES + 1, device=images.device))
        area = full_height * full_width * (self.low + (self.high - self.low) * uniform(tries, 1))
        ratio = (4 / 3) ** (2 * uniform(tries, 2) - 1)
        widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (widths >= 1) & (heights >= 1) & (widths <= full_width) & (heights <= full_height)
        first = fits.int().argmax(dim=1, keepdim=True)  # the first draw that fits, or 0
        any_fits = fits.any(dim=1)
        fallback_height = min(full_height, round(full_width / (3 / 4)))
        fallback_width = min(full_width, round(full_height * (4 / 3)))
        height = torch.where(any_fits, heights.gather(1, first)[:, 0], fallback_height)
        width = torch.where(any_fits, widths.gather(1, first)[:, 0], fallback_width)
        top = torch.where(any_fits, uniform(key, 101), 0.5) * (full_height - height + 1)
        left = torch.where(any_fits, uniform(key, 102), 0.5) * (full_width - width + 1)
        flip = (uniform(key, 103) < 0.5) & self.flip
        return top.floor(), left.floor(), height, width, flip

    def source(self, images: Tensor) -> Tensor:
        """The images themselves."""
        return images

    def take(self, source: Tensor, images: Tensor, parameters: Parameters, size: int) -> Tensor:
        """Sample the batch bilinearly in one operation."""
        top, left, height, width, flip = (value.float() for value in parameters)
        full_height, full_width = source.shape[1:3]
        # An affine map from output coordinates in [-1, 1] to those of the crop in the image.
        matrix = torch.zeros(len(images), 2, 3, device=source.device)
        matrix[:, 0, 0] = width / full_width * (1 - 2 * flip)
        matrix[:, 0, 2] = (2 * left + width) / full_width - 1
        matrix[:, 1, 1] = height / full_height
        matrix[:, 1, 2] = (2 * top + height) / full_height - 1
        planes = source[images].permute(0, 3, 1, 2).float()
        grid = F.affine_grid(matrix, [*planes.shape[:2], size, size], align_corners=False)
        sampled = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)
        return sampled.permute(0, 2, 3, 1)
