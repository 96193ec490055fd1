"""Batches of pixels: uint8 until they are on the device, gathered in one operation per batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from meal.core.errors import UserError
from meal.data.prepared import Prepared, Split
from meal.data.stores import ImageStore
from meal.views.crops import PaddedCrops, Parameters
from meal.views.families import ViewFamily
from meal.views.mixing import Kinds, Mix

_DRAWN_AT_ONCE = 1 << 16  # images whose views are drawn at once, to bound memory


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Factor and summand, float32 `(C,)`, that normalise pixels from 0 to 255.

    Args:
        mean, std: of values in [0, 1], by channel.
    """
    divisor = torch.tensor(std, dtype=torch.float64) * 255
    shift = -torch.tensor(mean, dtype=torch.float64) * 255 / divisor
    return (1 / divisor).float(), shift.float()


def check_padding(family: ViewFamily, side: int, key: str = "views") -> None:
    """Check that a crop always shows a part of the image.

    Args:
        family: the views.
        side: side length of the images in pixels.
        key: the section of params.yaml that sets the padding, for the message.

    Raises:
        UserError: if the padding is larger than half of the image.
    """
    padding = family.crops.crop_padding if isinstance(family.crops, PaddedCrops) else 0
    if padding > side // 2:
        raise UserError(
            f"{key}.crop_padding={padding}: images have {side} pixels; allowed: 0 to {side // 2}"
        )


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
    """Images `(B, C, H, W)`, float32: view `view` of the rows `(B,)`, mixed as `mix` says."""

    view: int
    rows: Tensor
    images: Tensor
    mix: Mix | None = None

    def labels(self, labels: Tensor, classes: int) -> Tensor:
        """The labels `(B,)` of the images; probabilities `(B, classes)` if they are mixed.

        Args:
            labels: of all images, `(N,)`; -1 for those without a label.
            classes: the number of classes.
        """
        if self.mix is not None:
            return self.mix.labels(labels, self.rows, classes)
        return labels[self.rows.to(labels.device, non_blocking=True)]


class ViewPipeline:
    """Any view of the images of a pipeline."""

    def __init__(
        self, plain: PlainPipeline, family: ViewFamily, labels: Tensor | None = None
    ) -> None:
        """Show the images of `plain` in views of `family`.

        Args:
            plain: the images.
            family: the views.
            labels: of the images, `(N,)`, -1 for those without: images are mixed with others of
                their kind. None if all have one.
        """
        self.family = family
        self._plain = plain
        whole = plain.store.whole
        self._whole = None if whole is None else family.crops.source(whole)
        self._drawn: tuple[int, Parameters] | None = None
        self._kinds = Kinds(torch.zeros(len(plain)) if labels is None else labels)

    @classmethod
    def of(cls, data: Prepared, family: ViewFamily, device: torch.device) -> ViewPipeline:
        """Views of the training images; raises as `check_padding` does."""
        check_padding(family, data.shape[1])
        plain = PlainPipeline.of(data, "train", device)
        return cls(plain, family, data.labels("train"))

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
                yield self._batch(view, rows, self._mix(view, rows), None)
            return
        ahead: deque[tuple[int, Tensor, Mix | None]] = deque()  # the batches that are read ahead

        def rows_of() -> Iterator[Tensor]:
            for view, rows in order:
                mix = self._mix(view, rows)
                ahead.append((view, rows, mix))
                yield rows if mix is None else torch.cat([rows, mix.partners])

        for _, pixels in self._plain.store.read(rows_of()):
            yield self._batch(*ahead.popleft(), pixels)

    def view(self, rows: Tensor, view: int) -> Tensor:
        """View `view` of the images of `rows` `(B,)`, read in one call."""
        mix, pixels = self._mix(view, rows), None
        if self._whole is None:
            wanted = rows if mix is None else torch.cat([rows, mix.partners])
            pixels = self._plain.store.fetch(wanted)
        return self._batch(view, rows, mix, pixels).images

    def _mix(self, view: int, rows: Tensor) -> Mix | None:
        mixing = self.family.mixing
        return mixing.draw(rows, view, self._kinds, self._plain.size) if mixing else None

    def _batch(self, view: int, rows: Tensor, mix: Mix | None, pixels: Tensor | None) -> ViewBatch:
        """A batch, from all images or from the pixels that were read for it.

        `pixels` are those of `rows` and then of their partners.
        """
        everyone = rows if mix is None else torch.cat([rows, mix.partners])
        if pixels is None:
            assert self._whole is not None
            source, places = self._whole, everyone
        else:
            source = self.family.crops.source(pixels.to(self.device, non_blocking=True))
            places = torch.arange(len(everyone))
        shown = self._pixels(view, everyone, source, places)
        if mix is not None:
            own, others = shown.split(len(rows))
            shown = mix.images(own, others)
        return ViewBatch(view, rows, self._plain.normalise(shown), mix)

    def _pixels(self, view: int, rows: Tensor, source: Tensor, places: Tensor) -> Tensor:
        """Views of the images of `rows`, which are at `places` in `source`, before mixing."""
        here, places = (each.to(self.device, non_blocking=True) for each in (rows, places))
        parameters = tuple(values[here] for values in self._draw(view))
        return self.family.pixels(source, places, rows, view, parameters, self._plain.size)

    def _draw(self, view: int) -> Parameters:
        """The parameters of a view for all images, drawn once per view instead of per batch."""
        if self._drawn is None or self._drawn[0] != view:
            indices = torch.arange(len(self), device=self.device)
            side = self._plain.store.side
            parts = [
                self.family.crops.parameters(chunk, view, (side, side))
                for chunk in indices.split(_DRAWN_AT_ONCE)
            ]
            self._drawn = view, tuple(torch.cat(values) for values in zip(*parts, strict=True))
        return self._drawn[1]
