"""The types of single values in params.yaml: what each may be, and the words when it is not."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

SMALLEST, LARGEST = 16, 1024  # pixels a side of an image
RESERVED = "mean"  # the ensemble's folder of that name


def _name(value: str) -> str:
    """Names become names of files and of DVC stages."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", value) or value == RESERVED:
        raise ValueError(
            f"a name is 1 to 64 letters, digits, '-' and '_', and not {RESERVED!r}, which is taken"
        )
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise ValueError("allowed: auto, cpu, cuda, cuda:N")
    return value


def _no_bool(value: object) -> object:
    """YAML's `yes` and `true` would otherwise pass as the number 1."""
    if isinstance(value, bool):
        raise ValueError("a number is expected, not a truth value")
    return value


def _scale(value: tuple[float, float]) -> tuple[float, float]:
    """Shares of an image's area, the smaller first."""
    if not value[0] <= value[1] <= 1:
        raise ValueError("two shares of the area are expected, the smaller first, at most 1")
    return value


def _off(value: object) -> object:
    """YAML 1.1 reads a bare `off` as false; params.yaml may write it without quotes."""
    return "off" if value is False else value


Integer = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool)]
Device = Annotated[str, AfterValidator(_device)]
Name = Annotated[str, AfterValidator(_name)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Count = Annotated[Integer, Field(ge=1)]
Scale = Annotated[tuple[Positive, Positive], AfterValidator(_scale)]
ImageSize = Annotated[Integer, Field(ge=SMALLEST, le=LARGEST)]
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

Crop = Literal["padded", "resized"]
Precision = Literal["float32", "bfloat16"]
Similarity = Literal["ce", "kl", "l1", "l2", "l1_soft", "l2_soft"]
Adversarial = Annotated[
    Literal["off", "minimax", "non_saturating", "cooperative"], BeforeValidator(_off)
]
Selection = Literal["random", "mean", "random_per_image"]
