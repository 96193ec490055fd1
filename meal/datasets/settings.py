"""`data` in params.yaml: how a dataset is prepared and split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from meal.core.fields import Integer, Number, Seed, unset
from meal.core.settings import Section

SMALLEST, LARGEST = 16, 1024  # side length of an image in pixels
ImageSize = Annotated[Integer, Field(ge=SMALLEST, le=LARGEST)]
SplitFraction = Annotated[Number, Field(gt=0, lt=1)]


_AUTO = unset("auto")


def _labelled(value: object) -> object:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(value, float) and value == 1:
        raise ValueError("as a fraction, all images: write all; as a number, one image: write 1")
    whole = number and float(str(value)).is_integer()
    if value == "all" or (number and (value >= 1 if whole else 0 < value < 1)):  # type: ignore[operator]
        return value
    raise ValueError("expected all, a number of images, or a fraction between 0 and 1")


Labelled = Annotated[Literal["all"] | int | float, BeforeValidator(_labelled)]


class Data(Section):
    """How the images are prepared and split.

    `labelled` is how many training images keep their labels: all, a number, or a fraction. The
    validation images are taken from them, unless the folder has its own; the others are unlabelled.
    `test_fraction` is split off if the dataset has no test images; None takes the dataset's own.
    `source_size` is the size of the images that views are cut from, if larger than `image_size`.
    """

    root: Annotated[Annotated[str, Field(min_length=1)] | None, _AUTO] = None
    image_size: Annotated[ImageSize | None, _AUTO] = None
    source_size: Annotated[ImageSize | None, _AUTO] = None
    store: Literal["auto", "array", "index"] = "auto"
    skip_broken: bool = False
    labelled: Labelled = "all"
    test_fraction: Annotated[SplitFraction | None, _AUTO] = None
    test_seed: Seed = 0
    validation_fraction: SplitFraction = 0.1
    split_seed: Seed = 0

    @model_validator(mode="after")
    def _sizes_fit(self) -> Data:
        if self.source_size is not None:
            size = self.image_size
            if size is None or not size <= self.source_size <= 2 * size:
                raise ValueError(
                    f"source_size={self.source_size}: it needs an image_size; allowed: from that "
                    "size to twice that size, or auto"
                )
        return self
