"""Batches of pixels: uint8 until they are on the device, one gather a batch, no workers."""

from __future__ import annotations

import torch
from torch import Tensor

from meal.data.prepared import Prepared, Split
from meal.data.views import Parameters, ViewFamily


class PlainPipeline:
    """Uint8 images on a device, and batches of them as normalised floats."""

    def __init__(
        self, images: Tensor, mean: list[float], deviation: list[float], device: torch.device
    ) -> None:
        """Take images `(N, H, W, C)`; mean and deviation are per channel, of values in [0, 1]."""
        self.images = images.to(device)
        scale = torch.tensor(deviation, dtype=torch.float64) * 255
        shift = -torch.tensor(mean, dtype=torch.float64) * 255 / scale
        # A whole row of pixels at once, not channel by channel.
        width = images.shape[2]
        self._scale = (1 / scale).float().repeat(width).to(device)
        self._shift = shift.float().repeat(width).to(device)

    @classmethod
    def of(cls, data: Prepared, split: Split, device: torch.device) -> PlainPipeline:
        """The images of a split of prepared data, with the training split's normalisation."""
        manifest = data.manifest
        return cls(data.images(split), manifest["mean"], manifest["deviation"], device)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def plain(self, start: int, stop: int) -> Tensor:
        """The images from `start` to `stop`: float32 `(B, C, H, W)`, channels last in memory."""
        return self.normalise(self.images[start:stop])

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels `(B, H, W, C)` from 0 to 255, to float32 `(B, C, H, W)` of mean 0, deviation 1."""
        rows = pixels.reshape(*pixels.shape[:2], -1)
        values = torch.mul(rows, self._scale).add_(self._shift)
        return values.view(pixels.shape).permute(0, 3, 1, 2)


class ViewPipeline:
    """Any view of the images of a pipeline."""

    def __init__(self, plain: PlainPipeline, family: ViewFamily) -> None:
        self.family = family
        self._plain = plain
        self._source = family.source(plain.images)
        self._indices = torch.arange(len(plain), device=plain.images.device)
        self._drawn: tuple[int, Parameters] | None = None

    def __len__(self) -> int:
        """The number of images."""
        return len(self._plain)

    def view(self, images: Tensor, view: int) -> Tensor:
        """View `view` of images `(B,)`: float32 `(B, C, H, W)`, channels last in memory."""
        parameters = tuple(values[images] for values in self._draw(view))
        return self._plain.normalise(self.family.take(self._source, images, parameters))

    def view_of_range(self, start: int, stop: int, view: int) -> Tensor:
        """View `view` of the images from `start` to `stop`."""
        return self.view(self._indices[start:stop], view)

    def _draw(self, view: int) -> Parameters:
        """The parameters of a view of all images: an epoch hashes once, not once a batch."""
        if self._drawn is None or self._drawn[0] != view:
            height, width = self._plain.images.shape[1:3]
            drawn = self.family.parameters(self._indices, view, (height, width))
            self._drawn = view, drawn
        return self._drawn[1]
