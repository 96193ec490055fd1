"""What the stage `ensemble` reads."""

from __future__ import annotations

from typing import Literal

from meal.core.settings import Section


class EnsembleSlice(Section):
    """The chosen teachers, and which weights the mean uses."""

    teachers: list[str]
    weights: Literal["uniform", "fitted", "best"] = "uniform"
