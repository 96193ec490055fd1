"""Types of single parameter values: the range of each, and the message for other values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field


def _no_bool(value: object) -> object:
    """Reject booleans: YAML's `yes` and `true` would otherwise pass as the number 1."""
    if isinstance(value, bool):
        raise ValueError("expected a number, not a boolean")
    return value


Integer = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Count = Annotated[Integer, Field(ge=1)]
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
