"""MEAL: distill several networks into one (Shen, He and Xue, AAAI 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meal.export.student import Student, load

__all__ = ["Student", "load"]


def __getattr__(name: str) -> Any:
    """Import `meal.load` when it is used: most stages and commands need no PyTorch."""
    if name in __all__:
        from meal.export import student

        return getattr(student, name)
    raise AttributeError(f"module 'meal' has no attribute {name!r}")
