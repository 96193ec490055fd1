"""What the stage `prepare` reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meal.core.settings import Section
from meal.datasets.settings import Data


class PrepareSlice(Section):
    """A dataset, and how it is prepared."""

    dataset: str
    data: Data


def reading(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how files are read: a slice without how the images are split.

    Args:
        config: the slice, as JSON holds it.
    """
    data = {key: config["data"][key] for key in ("root", "image_size", "source_size", "store")}
    return {"dataset": config["dataset"], "data": data}
