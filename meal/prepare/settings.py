"""What the stage `prepare` reads."""

from __future__ import annotations

from meal.core.settings import Section
from meal.datasets.settings import Data


class PrepareSlice(Section):
    """A dataset, and how it is prepared."""

    dataset: str
    data: Data
