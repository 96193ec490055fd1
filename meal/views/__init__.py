"""Replayable augmentation. `apply(...)` makes the pixels of a view outside the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meal.views.pixels import apply

__all__ = ["apply"]


def __getattr__(name: str) -> Any:
    """Import `apply` when it is used: the stages have pipelines."""
    if name in __all__:
        from meal.views.pixels import apply

        return apply
    raise AttributeError(f"module 'meal.views' has no attribute {name!r}")
