"""Views: an augmented image as a pure function of (seed, image index, view index).

Crop and flip come from a counter-based hash, not from a generator's state, so that any process,
batch, order or device rebuilds the same view. That is what makes a cache of teachers' answers
exact (METHOD: the same view for teacher and student; Beyer et al., CVPR 2022).

The family of padded crops is finite: `(2 * padding + 1)^2` offsets, twice as many with flips. Its
members are enumerated without replacement, in an order of each image's own, by the swap-or-not
shuffle (Hoang, Morris and Rogaway, CRYPTO 2012): a bijection of any number of members, computed
for one view without the others. View indices beyond the family start a new order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from meal.config import ViewsSlice
from meal.data.prepared import Prepared, Split

VERSION = 1  # part of every cache's fingerprint: raise it when a view's pixels would change
_MASK = 0xFFFFFFFF
_ROUNDS = 24  # about 3 * log2(162): more rounds change nothing a training run could see


def mix(value: Tensor, salt: Tensor | int) -> Tensor:
    """Hash 32-bit integers, held in int64, with a salt: MurmurHash3's finaliser (Appleby, 2011)."""
    value = (value ^ salt) & _MASK
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _MASK
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)


def hash_integers(seed: int, *parts: Tensor | int) -> Tensor:
    """Hash a seed (up to 63 bits) and integers, broadcast together, to 32 bits in int64."""
    state = mix(torch.tensor(seed & _MASK), (seed >> 32) ^ 0x9E3779B9)
    for position, part in enumerate(parts):
        part = torch.as_tensor(part)
        state = mix(mix(part & _MASK, 0x7F4A7C15 + position) + state.to(part.device), part >> 32)
    return state


@dataclass(frozen=True)
class ViewFamily:
    """The padded crops and flips of images of one size."""

    seed: int
    crop_padding: int
    flip: bool

    @classmethod
    def of(cls, config: ViewsSlice) -> ViewFamily:
        """The family that a slice of the configuration describes."""
        return cls(config.seed, config.crop_padding, config.flip)

    @property
    def size(self) -> int:
        """How many different views an image has."""
        return (2 * self.crop_padding + 1) ** 2 * (2 if self.flip else 1)

    @property
    def identity(self) -> dict[str, int | bool]:
        """What a cache must share with a student: equal values mean equal views."""
        return {
            "version": VERSION,
            "seed": self.seed,
            "crop_padding": self.crop_padding,
            "flip": self.flip,
        }

    def parameters(self, images: Tensor, view: int) -> tuple[Tensor, Tensor, Tensor]:
        """Row offset, column offset and flip of view `view` of each image.

        Args:
            images: indices `(N,)` of images in their split, int64, on any device.
            view: the view's index, from 0, unbounded.

        Returns:
            Three tensors `(N,)`: offsets from 0 to `2 * crop_padding`, and a truth value.
        """
        turn, place = divmod(view, self.size)
        key = hash_integers(self.seed, images, turn)
        member = torch.full_like(images, place)
        for step in range(_ROUNDS):
            shift = mix(key, 2 * step + 1) % self.size
            partner = (shift + self.size - member) % self.size
            coin = mix(key + torch.maximum(member, partner), 2 * step + 2) & 1
            member = torch.where(coin == 1, partner, member)
        side = 2 * self.crop_padding + 1
        offset = member % side**2
        return offset // side, offset % side, member >= side**2


class PlainPipeline:
    """Uint8 images on a device, and batches of them as normalised floats."""

    def __init__(
        self, images: Tensor, mean: list[float], deviation: list[float], device: torch.device
    ) -> None:
        """Take images `(N, H, W, C)`; mean and deviation are per channel, of values in [0, 1]."""
        self.images = images.to(device)
        scale = torch.tensor(deviation, dtype=torch.float64) * 255
        self._scale = (1 / scale).float().to(device)
        self._shift = (-torch.tensor(mean, dtype=torch.float64) * 255 / scale).float().to(device)

    @classmethod
    def of(cls, data: Prepared, split: Split, device: torch.device) -> PlainPipeline:
        """The images of a split of prepared data, with the training split's normalisation."""
        manifest = data.manifest
        return PlainPipeline(data.images(split), manifest["mean"], manifest["deviation"], device)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def plain(self, start: int, stop: int) -> Tensor:
        """The images from `start` to `stop`: float32 `(B, C, H, W)`, channels last in memory."""
        return self.normalise(self.images[start:stop])

    def normalise(self, pixels: Tensor) -> Tensor:
        """Uint8 `(B, H, W, C)` to float32 `(B, C, H, W)` of mean 0 and deviation 1."""
        return pixels.float().mul_(self._scale).add_(self._shift).permute(0, 3, 1, 2)


class ViewPipeline:
    """Any view of the images of a pipeline. One gather builds a batch: no loop, no workers."""

    def __init__(self, source: PlainPipeline, family: ViewFamily) -> None:
        padding = family.crop_padding
        self.family = family
        self._source = source
        self._padded = torch.nn.functional.pad(
            source.images, (0, 0, padding, padding, padding, padding)
        )
        count, height, width, _ = source.images.shape
        device = source.images.device
        self._indices = torch.arange(count, device=device)
        self._rows = torch.arange(height, device=device)
        self._columns = torch.arange(width, device=device)
        self._drawn: tuple[int, tuple[Tensor, Tensor, Tensor]] | None = None

    def __len__(self) -> int:
        """The number of images."""
        return len(self._source)

    def view(self, images: Tensor, view: int) -> Tensor:
        """View `view` of images `(B,)`: float32 `(B, C, H, W)`, channels last in memory."""
        top, left, flip = (values[images] for values in self._draw(view))
        columns = torch.where(flip[:, None], self._columns.flip(0), self._columns)
        rows = top[:, None] + self._rows
        columns = left[:, None] + columns
        pixels = self._padded[images[:, None, None], rows[:, :, None], columns[:, None, :]]
        return self._source.normalise(pixels)

    def view_of_range(self, start: int, stop: int, view: int) -> Tensor:
        """View `view` of the images from `start` to `stop`."""
        return self.view(self._indices[start:stop], view)

    def _draw(self, view: int) -> tuple[Tensor, Tensor, Tensor]:
        """The parameters of a view of all images: an epoch hashes once, not once a batch."""
        if self._drawn is None or self._drawn[0] != view:
            self._drawn = view, self.family.parameters(self._indices, view)
        return self._drawn[1]
