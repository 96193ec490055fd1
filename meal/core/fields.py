"""Types of single parameter values: the range of each, and the message for other values."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field


def _no_bool(value: object) -> object:
    """Reject booleans: YAML's `yes` and `true` would otherwise pass as the number 1."""
    if isinstance(value, bool):
        raise ValueError("expected a number, not a boolean")
    return value


def _seed(value: int) -> int:
    """Check the range here: pydantic's own message would round 2**63 as a float."""
    if not 0 <= value < 2**63:
        raise ValueError(f"expected an integer from 0 to {2**63 - 1}")
    return value


def unset(word: str) -> BeforeValidator:
    """Accept a word in place of null, which DVC erases when it rewrites params.yaml."""

    def check(value: object) -> object:
        if isinstance(value, str) and value in _WORDS and value != word:
            raise ValueError(f"to leave it unset, write {word}")
        return None if value == word else value

    return BeforeValidator(check)


def _sha256(value: str) -> str:
    if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise ValueError("expected the 64 digits (0-9, a-f) that sha256sum prints")
    return value


_WORDS = ("all", "auto", "none", "null", "off")  # what people write for "unset"

Integer = Annotated[int, BeforeValidator(_no_bool)]
Number = Annotated[float, BeforeValidator(_no_bool)]
Positive = Annotated[Number, Field(ge=1e-9, le=1e9)]
NonNegative = Annotated[Number, Field(ge=0, le=1e9)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Count = Annotated[Integer, Field(ge=1, le=10**9)]
Seed = Annotated[Integer, AfterValidator(_seed)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
