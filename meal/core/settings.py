"""Reading parameters and slices: one line per fault, with the key, its value and what is allowed.

Each sub-package owns the sections of params.yaml that it uses, in its `settings.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from meal.core.errors import UserError
from meal.core.files import read_json


class Section(BaseModel):
    """A part of params.yaml. Unknown keys, infinities and NaN are errors.

    Validators raise ValueError, as pydantic requires; `parse` turns it into a UserError.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


SectionT = TypeVar("SectionT", bound=BaseModel)

# What PyYAML raises for values such as the date 2020-13-45 or `!!int abc`.
_CONSTRUCTORS = (ValueError, KeyError, AttributeError, OverflowError, TypeError)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values.

    Raises:
        UserError: if it cannot be read or does not hold keys and values.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, RecursionError, *_CONSTRUCTORS) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path.name} cannot be read: {reason}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path.name} holds no keys; start from the file in the repository")
    return raw


def load_slice(model: type[SectionT], path: Path) -> SectionT:
    """Read a slice that `configure` wrote.

    Raises:
        UserError: if it is missing or from another version; `dvc repro configure` fixes both.
    """
    fix = "dvc repro configure"
    raw = read_json(path, fix)
    try:
        return parse(model, raw, source=str(path))
    except UserError as error:
        raise UserError(f"{error}; fix: {fix}") from None


def parse(model: type[SectionT], raw: object, *, source: str) -> SectionT:
    """Validate `raw` as `model`.

    Raises:
        UserError: with one line per key, each starting with `source`.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        faults: dict[str, list[str]] = {}
        for fault in error.errors():
            key, message = _explain(model, fault)
            faults.setdefault(key, []).append(message)
        lines = [_printable(f"{source}: {key}{' or '.join(says)}") for key, says in faults.items()]
        raise UserError("\n".join(lines)) from None


def _explain(model: type[BaseModel], fault: Any) -> tuple[str, str]:
    """A fault in two parts: the key with its value, and what is allowed."""
    # Pydantic adds the member of a union that it tried to the path; users never wrote it.
    location = [part for part in fault["loc"] if not (isinstance(part, str) and _is_tag(part))]
    key = ".".join(str(part) for part in location)
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return key, f": unknown key; allowed here: {', '.join(_siblings(model, location))}"
    if fault["type"] == "missing":
        return key, ": missing"
    if isinstance(fault["input"], Mapping):  # the message of a rule on several keys names them
        prefix = f"{key}." if key and fault["type"] == "value_error" else f"{key}: " if key else ""
        return prefix, message
    try:
        value = repr(fault["input"])
    except ValueError:  # Python refuses to print integers of thousands of digits
        value = "a number with too many digits"
    shown = value if len(value) <= 60 else value[:57] + "..."
    return f"{key}={shown}: ", message[0].lower() + message[1:]


def _printable(line: str) -> str:
    """The text on one line: keys may hold line breaks and other control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _is_tag(part: str) -> bool:
    return part in {"bool", "float"} or "[" in part


def _siblings(model: type[BaseModel], location: list[int | str]) -> list[str]:
    """The keys that are allowed where an unknown one was found."""
    current = model
    for part in location[:-1]:
        field = current.model_fields.get(str(part))
        # A part that is not a field is a key of a dictionary of sections.
        current = _section(field.annotation) or current if field is not None else current
    return list(current.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation allows: alone, in a union, or in a dictionary."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section(member) for member in get_args(annotation))
    return next((section for section in found if section is not None), None)
