"""`views` in params.yaml: the augmented versions of a training image."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from meal.core.errors import UserError
from meal.core.fields import Integer, Number, Positive, Seed
from meal.core.settings import Section


def _scale(value: tuple[float, float]) -> tuple[float, float]:
    """Check fractions of an image's area: at most 1, the smaller first."""
    if not value[0] <= value[1] <= 1:
        raise ValueError("expected two fractions of the area, the smaller first, at most 1")
    return value


Crop = Literal["padded", "resized"]
Scale = Annotated[tuple[Positive, Positive], AfterValidator(_scale)]


def count_crops(crop_padding: int, flip: bool) -> int:
    """The padded crops of an image, one for each offset, mirrored or not: 162 for 4 with flips."""
    return (2 * crop_padding + 1) ** 2 * (2 if flip else 1)


class ViewsSlice(Section):
    """A fully resolved family of views.

    `size` is the number of different views of an image; None if there is no limit.
    """

    seed: Seed
    crop: Crop = "padded"
    crop_padding: int
    scale: Scale = (0.35, 1.0)
    flip: bool
    size: int | None
    randaugment: int = 0
    magnitude: int = 9
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


class Augmentation(Section):
    """What a view shows of an image.

    `randaugment` is the number of operations of RandAugment on a view, and `magnitude` their
    strength; `erase` is the probability that a rectangle is painted over; `mixup` and `cutmix` are
    the parameters of the Beta distributions of shares, 0 for none.
    """

    crop: Crop = "padded"
    crop_padding: Annotated[Integer, Field(ge=0, le=16)] = 4
    scale: Scale = (0.35, 1.0)
    flip: bool | Literal["auto"] = "auto"
    randaugment: Annotated[Integer, Field(ge=0, le=10)] = 0
    magnitude: Annotated[Integer, Field(ge=0, le=30)] = 9
    erase: Annotated[Number, Field(ge=0, le=1)] = 0.0
    mixup: Annotated[Number, Field(ge=0, le=1000)] = 0.0
    cutmix: Annotated[Number, Field(ge=0, le=1000)] = 0.0

    def family(self, seed: int, flip: bool) -> ViewsSlice:
        """The family of views.

        Args:
            seed: of the views.
            flip: whether the dataset's images may be mirrored, for `flip: auto`.
        """
        flips = flip if self.flip == "auto" else self.flip
        drawn = self.randaugment or self.erase or self.mixup or self.cutmix
        limited = self.crop == "padded" and not drawn
        size = count_crops(self.crop_padding, flips) if limited else None
        own = {name: getattr(self, name) for name in Augmentation.model_fields if name != "flip"}
        return ViewsSlice(**own, seed=seed, flip=flips, size=size)


class Views(Augmentation):
    """The views of a training image. `count` is the number of them cached per teacher."""

    seed: Seed = 0
    count: Annotated[Integer, Field(ge=1, le=100_000)] | Literal["all"] = 8

    def resolve(self, flip: bool) -> tuple[ViewsSlice, int]:
        """The family of views, and the number of them that are cached.

        Args:
            flip: whether the dataset's images may be mirrored, for `flip: auto`.

        Raises:
            UserError: if the family has fewer views than `count`, or `all` of an unlimited number.
        """
        family = self.family(self.seed, flip)
        size = family.size
        if size is None:
            if self.count == "all":
                raise UserError(
                    "views.count='all': with crop: resized, randaugment, erase, mixup or cutmix "
                    "there is no limit; give a number"
                )
            return family, self.count
        if self.count != "all" and self.count > size:
            raise UserError(
                f"views.count={self.count}: crop_padding {self.crop_padding} and flip "
                f"{family.flip} give {size} different views; allowed: 1 to {size}, or all"
            )
        return family, size if self.count == "all" else self.count
