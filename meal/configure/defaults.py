"""The parameters as they are delivered, to say in which a run differs from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meal.configure.schema import Params

DEFAULTS = Path(__file__).with_name("defaults.json")  # those of params.yaml; a test compares them


def changed(params: Params) -> dict[str, Any]:
    """The parameters that differ from the defaults, by their keys; unused networks do not count."""
    defaults = json.loads(DEFAULTS.read_text(encoding="utf-8"))
    unused = {
        f"networks.{name}" for name in {*params.networks} - {params.student, *params.teachers}
    }
    return {
        key: value
        for key, value in given(params).items()
        if defaults.get(key, ...) != value and ".".join(key.split(".")[:2]) not in unused
    }


def given(params: Params) -> dict[str, Any]:
    """All parameters but `runtime`, by their keys."""
    return flat(params.model_dump(mode="json", exclude={"runtime"}))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings, with their keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return found
