"""Reading parameters and slices; a fault is a line with its key, value and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from meal.config.schema import Params


def load_params(path: Path) -> Params:
    """Read and check a params file.

    Raises:
        ValueError: one line per fault, each naming the key, the value and what is allowed.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path.name} cannot be read: {reason}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path.name} holds no keys; start from the one in the repository")
    return parse(Params, raw, source=path.name)


SliceT = TypeVar("SliceT", bound=BaseModel)


def load_slice(model: type[SliceT], path: Path) -> SliceT:
    """Read a slice that `configure` wrote.

    Raises:
        ValueError: if it is missing or of another version; `dvc repro configure` mends both.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return parse(model, raw, source=str(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{error} (mend it with: dvc repro configure)") from None


def parse(model: type[SliceT], raw: Mapping[str, Any], *, source: str) -> SliceT:
    """Validate `raw` as `model`; faults become one ValueError with a line for each key."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        faults: dict[str, list[str]] = {}
        for fault in error.errors():
            key, message = _explain(model, fault)
            faults.setdefault(key, []).append(message)
        lines = [_printable(f"{source}: {key}{' or '.join(says)}") for key, says in faults.items()]
        raise ValueError("\n".join(lines)) from None


def check_choice(source: str, key: str, value: str, allowed: Collection[str]) -> None:
    """Raise the error of an unknown choice, in the form of every other configuration error."""
    if value not in allowed:
        raise ValueError(
            f"{source}: {key}={value!r}: unknown; allowed: {', '.join(sorted(allowed))}"
        )


def _explain(model: type[BaseModel], fault: Any) -> tuple[str, str]:
    """A fault as its key with the value, and what is allowed."""
    # Pydantic adds the tried member of a union to the path; users never wrote it.
    location = [part for part in fault["loc"] if not (isinstance(part, str) and _is_tag(part))]
    key = ".".join(str(part) for part in location)
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return key, f": unknown key; allowed here: {', '.join(_siblings(model, location))}"
    if fault["type"] == "missing":
        return key, ": missing"
    if isinstance(fault["input"], dict):  # a rule on several keys names them itself
        prefix = f"{key}." if key and fault["type"] == "value_error" else f"{key}: " if key else ""
        return prefix, message
    value = repr(fault["input"])
    shown = value if len(value) <= 60 else value[:57] + "..."
    return f"{key}={shown}: ", message[0].lower() + message[1:]


def _printable(line: str) -> str:
    """A line that stays one: keys may hold line ends and other control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _is_tag(part: str) -> bool:
    return part in {"bool", "float"} or "[" in part


def _siblings(model: type[BaseModel], location: list[int | str]) -> list[str]:
    """The keys that are allowed where an unknown one stood."""
    current = model
    for part in location[:-1]:
        field = current.model_fields.get(str(part))
        # What is no field is an entry of a dictionary of sections.
        current = _section(field.annotation) or current if field is not None else current
    return list(current.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation allows, alone, beside others, or in a dictionary."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section(member) for member in get_args(annotation))
    return next((section for section in found if section is not None), None)
