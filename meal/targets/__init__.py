"""Teachers' outputs on disk. `open(folder)` reads them in any training loop of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meal.targets.shared import open_cache as open

__all__ = ["open"]


def __getattr__(name: str) -> Any:
    """Import `open` when it is used: the stages read caches themselves."""
    if name in __all__:
        from meal.targets.shared import open_cache

        return open_cache
    raise AttributeError(f"module 'meal.targets' has no attribute {name!r}")
