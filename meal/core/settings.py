"""Reading parameters and slices: one line per fault, with the key, its value and what is allowed.

A section of params.yaml stands in the `settings.py` of the package that uses it, or, if no package
does so beyond its slice, in `configure/schema.py`.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML, events
from ruamel.yaml.error import YAMLError

from meal.core.errors import UserError
from meal.core.files import read_sealed
from meal.core.text import printable


class Section(BaseModel):
    """A part of params.yaml. Unknown keys, infinities and NaN are errors.

    Validators raise ValueError, as pydantic requires; `parse` turns it into a UserError.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


SectionT = TypeVar("SectionT", bound=BaseModel)

# More levels than any section has, and more values than any params.yaml holds.
_DEEPEST, _MOST_VALUES = 30, 100_000

# What the parser raises for values such as the date 2020-13-45 or `!!int abc`.
_CONSTRUCTORS = (ValueError, KeyError, AttributeError, OverflowError, TypeError)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values.

    Raises:
        UserError: if it cannot be read or does not hold keys and values.
    """
    try:
        raw = copy.deepcopy(_content(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path.name} cannot be read: {reason}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path.name} holds no keys; start from the file in the repository")
    return raw


def parse_yaml(text: str) -> Any:
    """The values in a text, as DVC reads them: YAML 1.2, in which 010 is ten and 5e-05 a number.

    Raises:
        ValueError: if it is not YAML.
    """
    try:
        return _parser().load(text)
    except (YAMLError, *_CONSTRUCTORS) as error:
        raise ValueError(str(error)) from None


@functools.lru_cache(maxsize=1)
def _content(text: str) -> Any:
    """The values in a text; a stage reads the same params.yaml several times."""
    try:
        _check_nesting(text)
    except YAMLError as error:
        raise ValueError(str(error)) from None
    return parse_yaml(text)


def _parser() -> YAML:
    return YAML(typ="safe", pure=True)


def _check_nesting(text: str) -> None:
    """Check that values are few and not nested too deeply, and that no alias contains itself.

    Raises:
        ValueError: with the line of the fault.
    """
    sizes: dict[str, int] = {}  # of what each anchor stands for; aliases repeat it
    open_: list[tuple[str | None, int]] = []  # anchor of each enclosing collection; values before
    values = 0
    for event in _parser().parse(text):
        line = f"line {event.start_mark.line + 1}" if event.start_mark else ""
        if isinstance(event, events.AliasEvent) and event.anchor is not None:
            if event.anchor in [anchor for anchor, _ in open_]:
                raise ValueError(f"{line}: *{event.anchor} contains itself")
            values += sizes.get(event.anchor, 0)
        elif isinstance(event, events.CollectionStartEvent):
            open_.append((event.anchor, values))
            values += 1
        elif isinstance(event, events.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor is not None:
                sizes[anchor] = values - before
        elif isinstance(event, events.ScalarEvent):
            values += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if len(open_) > _DEEPEST:
            raise ValueError(f"{line}: nested more than {_DEEPEST} levels deep")
        if values > _MOST_VALUES:
            raise ValueError(f"{line}: more than {_MOST_VALUES} values, aliases included")


def load_slice(model: type[SectionT], path: Path) -> SectionT:
    """Read a slice that `configure` wrote.

    Raises:
        UserError: if it is missing, damaged, or from another version.
    """
    fix = "dvc repro configure"
    sealed = read_sealed(path, fix)
    try:
        raw = {key: value for key, value in sealed.items() if key != "fingerprint"}
        return parse(model, raw, source=str(path))
    except UserError as error:
        raise UserError(f"{error}; fix: {fix}") from None


def parse(model: type[SectionT], raw: object, *, source: str, section: str = "") -> SectionT:
    """Validate `raw` as `model`.

    Args:
        model: what is expected.
        raw: what was read.
        source: where it comes from, for messages.
        section: of params.yaml that it belongs to, with a dot at its end; empty for all of it.

    Raises:
        UserError: with one line per key, each starting with `source`.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        faults: dict[str, list[str]] = {}
        for fault in filter(_meant, error.errors()):
            key, message = _explain(model, fault)
            faults.setdefault(key, []).append(message)
        said = {key: " or ".join(says) for key, says in faults.items()}
        lines = [
            printable(f"{source}: {section}{key}{says.replace(' or must be', ' or')}")
            for key, says in said.items()
        ]
        raise UserError("\n".join(lines)) from None


def _meant(fault: Any) -> bool:
    """Whether a fault is of the union's member that the value was meant for.

    A mapping was meant as a section, not as one of the allowed words.
    """
    word = str(fault["loc"][-1]).startswith("literal[") if fault["loc"] else False
    return not (word and isinstance(fault["input"], Mapping))


def _explain(model: type[BaseModel], fault: Any) -> tuple[str, str]:
    """A fault in two parts: the key with its value, and what is allowed."""
    # Pydantic adds the member of a union that it tried to the path; users never wrote it.
    unknown = fault["type"] == "extra_forbidden"  # then the last part is what the user wrote
    location = [
        part
        for place, part in enumerate(fault["loc"], 1)
        if (unknown and place == len(fault["loc"])) or not _is_tag(part)
    ]
    key = ".".join(str(part) for part in location)
    message = fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    message = _plain(fault["type"], fault.get("ctx", {})) or message
    if unknown:
        return key, f": unknown key; allowed here: {', '.join(_siblings(model, location))}"
    if fault["type"] == "missing":
        return key, ": missing"
    if isinstance(fault["input"], Mapping):  # the message of a rule on several keys names them
        named = fault["type"] == "value_error" and re.match(r"[\w.]+[=:]", message)
        prefix = f"{key}." if key and named else f"{key}: " if key else ""
        return prefix, message
    try:
        value = repr(fault["input"])
    except ValueError:  # Python refuses to print integers of thousands of digits
        value = "a number with too many digits"
    shown = value if len(value) <= 60 else value[:57] + "..."
    return f"{key}={shown}: ", message[0].lower() + message[1:]


def _plain(kind: str, context: Mapping[str, Any]) -> str | None:
    """A message without Python's words for what YAML calls lists and keys; None for pydantic's."""
    if kind in ("model_type", "dict_type"):
        return "must be keys with values"
    if kind in ("list_type", "tuple_type"):
        return "must be a list"
    if kind in ("too_short", "too_long"):
        low, high = context.get("min_length"), context.get("max_length")
        return f"must have at {f'least {low}' if kind == 'too_short' else f'most {high}'} entries"
    return None


def _is_tag(part: int | str) -> bool:
    return isinstance(part, str) and (part in {"bool", "float"} or "[" in part)


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
