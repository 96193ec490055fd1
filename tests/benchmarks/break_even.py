"""When a cache pays off: teachers' forward passes over the training set, cached and online."""

from __future__ import annotations

from tests.benchmarks.common import report
from tests.conftest import recipe_params


def run() -> None:
    """Count the passes for the views and epochs of the Fashion-MNIST recipe; nothing is timed."""
    params = recipe_params("fashion_mnist")
    teachers, views = len(params["teachers"]), params["views"]["count"]
    epochs = params["distill"]["epochs"]
    rows = [
        {
            "students": students,
            "cached": teachers * views,
            "online_random": students * epochs,
            "online_mean": students * epochs * teachers,
        }
        for students in (1, 2, 5, 20)
    ]
    note = f"forward passes of a teacher; {teachers} teachers, {views} views, {epochs} epochs"
    report("break_even", rows, note)
