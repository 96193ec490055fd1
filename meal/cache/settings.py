"""`cache` in params.yaml, and what the stage `cache` reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from meal.core.fields import Count, Integer, unset
from meal.core.settings import Section
from meal.views.settings import ViewsSlice


class Cache(Section):
    """How teachers' outputs are stored.

    `blocks` is the number of blocks that a network is divided into; `align` is how a block becomes
    values that can be compared.
    """

    enabled: bool = True
    top_k: Annotated[Count | None, unset("all")] = None
    dtype: Literal["float16", "float32"] = "float16"
    blocks: Annotated[Integer, Field(ge=0, le=8)] = 3
    align: Literal["spatial", "projected"] = "spatial"


class CacheSlice(Section):
    """One teacher, the views to cache, and how to store them."""

    name: str
    views: ViewsSlice
    view_count: int
    cache: Cache
