"""params.yaml is read as DVC reads it: what runs is what DVC records."""

from __future__ import annotations

import pytest
from dvc.utils.serialize import loads_yaml

from meal.core.settings import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-05", 5e-05), ("1e5", 1e5), ("010", 10), ("0o17", 15), ("1:30", "1:30"),
        ("off", "off"), ("yes", "yes"), ("true", True), ("null", None), ("1_000", 1000),
    ],
)  # fmt: skip
def test_values_are_those_that_dvc_reads(text: str, value: object) -> None:
    assert parse_yaml(f"key: {text}") == {"key": value} == loads_yaml(f"key: {text}")
    assert type(parse_yaml(f"key: {text}")["key"]) is type(value)
