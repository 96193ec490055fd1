"""What the stage `report` reads."""

from __future__ import annotations

from typing import Any

from meal.core.settings import Section


class ReportSlice(Section):
    """The parameters of the run, as they were given, without `runtime`.

    `changed` holds those that differ from the defaults, by their keys; `training` how baseline and
    student are optimised.
    """

    params: dict[str, Any]
    changed: dict[str, Any]
    training: dict[str, dict[str, Any]]
