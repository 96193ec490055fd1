"""Batches of pixels: uint8 until they are on the device, gathered in one operation per batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from meal.data.prepared import Prepared, Split
from meal.data.stores import ImageStore
from meal.views.families import Parameters, ViewFamily

_DRAWN_AT_ONCE = 1 << 16  # images whose views are drawn at once, to bound memory


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Factor and summand, float32 `(C,)`, that normalise pixels from 0 to 255.

    Args:
        mean, std: of values in [0, 1], by channel.
    """
    divisor = torch.tensor(std, dtype=torch.float64) * 255
    shift = -torch.tensor(mean, dtype=torch.float64) * 255 / divisor
    return (1 / divisor).float(), shift.float()


class PlainPipeline:
    """The unaugmented images of a split, in batches of normalised floats on a device."""

    def __init__(
        self,
        store: ImageStore,
        mean: list[float],
        std: list[float],
        device: torch.device,
        size: int | None = None,
    ) -> None:
        """Normalise the images of a store.

        Args:
            store: the images.
            mean, std: of values in [0, 1], by channel.
            device: the device of the batches.
            size: side length in pixels of what networks see: the centre of larger images.
        """
        self.store, self.device = store.to(device), device
        self.size = size or store.side
        # Repeated for a whole row of pixels, which is faster than channel by channel.
        self._scale, self._shift = (
            values.repeat(self.size).to(device) for values in scale_and_shift(mean, std)
        )

    @classmethod
    def of(cls, data: Prepared, split: Split, device: torch.device) -> PlainPipeline:
        """The images of a split, normalised with the statistics of the training split."""
        return cls(data.images(split), data.mean, data.std, device, data.shape[1])

    def __len__(self) -> int:
        """The number of images."""
        return len(self.store)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what networks see."""
        return self.store.channels, self.size, self.size

    def batches(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Each batch of rows `(B,)` with its images: float32 `(B, C, H, W)`, channels last."""
        for rows, pixels in self.store.read(order):
            yield rows, self._centre(pixels)

    def plain(self, start: int, stop: int) -> Tensor:
        """The images from `start` to `stop`, read in one call."""
        return self._centre(self.store.fetch(torch.arange(start, stop)))

    def normalise(self, pixels: Tensor) -> Tensor:
        """From pixels `(B, H, W, C)` from 0 to 255 to normalised float32 `(B, C, H, W)`."""
        rows = pixels.reshape(*pixels.shape[:2], -1)
        values = torch.mul(rows, self._scale).add_(self._shift)
        return values.view(pixels.shape).permute(0, 3, 1, 2)

    def _centre(self, pixels: Tensor) -> Tensor:
        border = (self.store.side - self.size) // 2
        stop = border + self.size
        pixels = pixels.to(self.device, non_blocking=True)
        return self.normalise(pixels[:, border:stop, border:stop])


class ViewBatch(NamedTuple):
    """Images `(B, C, H, W)`, float32: view `view` of the rows `(B,)`."""

    view: int
    rows: Tensor
    images: Tensor


class ViewPipeline:
    """Any view of the images of a pipeline."""

    def __init__(self, plain: PlainPipeline, family: ViewFamily) -> None:
        self.family = family
        self._plain = plain
        whole = plain.store.whole
        self._whole = None if whole is None else family.source(whole)
        self._drawn: tuple[int, Parameters] | None = None

    def __len__(self) -> int:
        """The number of images."""
        return len(self._plain)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a view."""
        return self._plain.shape

    @property
    def device(self) -> torch.device:
        """The device on which views are computed."""
        return self._plain.device

    def batches(self, order: Iterable[tuple[int, Tensor]]) -> Iterator[ViewBatch]:
        """A view of each batch in `order`, which gives view numbers and rows `(B,)`.

        Views are drawn once for all images: neighbouring batches should share their view.
        """
        if self._whole is not None:
            for view, rows in order:
                yield ViewBatch(view, rows, self._take(rows, self._whole, rows, view))
            return
        views: deque[int] = deque()  # of the batches that are read ahead

        def rows_of() -> Iterator[Tensor]:
            for view, rows in order:
                views.append(view)
                yield rows

        for rows, pixels in self._plain.store.read(rows_of()):
            view = views.popleft()
            yield ViewBatch(view, rows, self._take_own(rows, pixels, view))

    def view(self, rows: Tensor, view: int) -> Tensor:
        """View `view` of the images of `rows` `(B,)`, read in one call."""
        if self._whole is not None:
            return self._take(rows, self._whole, rows, view)
        return self._take_own(rows, self._plain.store.fetch(rows), view)

    def _take_own(self, rows: Tensor, pixels: Tensor, view: int) -> Tensor:
        """A view of images whose pixels `(B, side, side, C)` have been read."""
        source = self.family.source(pixels.to(self._plain.device, non_blocking=True))
        return self._take(rows, source, torch.arange(len(rows)), view)

    def _take(self, rows: Tensor, source: Tensor, places: Tensor, view: int) -> Tensor:
        """A view of the images of `rows`, which are at `places` in `source`."""
        device = self._plain.device
        rows, places = (each.to(device, non_blocking=True) for each in (rows, places))
        parameters = tuple(values[rows] for values in self._draw(view))
        return self._plain.normalise(self.family.take(source, places, parameters, self._plain.size))

    def _draw(self, view: int) -> Parameters:
        """The parameters of a view for all images, drawn once per view instead of per batch."""
        if self._drawn is None or self._drawn[0] != view:
            indices = torch.arange(len(self), device=self._plain.device)
            side = self._plain.store.side
            parts = [
                self.family.parameters(chunk, view, (side, side))
                for chunk in indices.split(_DRAWN_AT_ONCE)
            ]
            self._drawn = view, tuple(torch.cat(values) for values in zip(*parts, strict=True))
        return self._drawn[1]
