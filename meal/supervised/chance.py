"""Whether a network has learnt anything: its error beside that of a constant answer."""

from __future__ import annotations

import numpy as np

from meal.metrics import Labels


def worse_than_chance(error: float, labels: Labels) -> str | None:
    """What to say of a network that is not clearly better than the largest class; None if it is.

    Args:
        error: on these images (%).
        labels: of the validation images, `(N,)`.
    """
    images = len(labels)
    chance = float(np.bincount(labels).max() / images)
    bound = chance + 3 * (chance * (1 - chance) / images) ** 0.5
    if 1 - error / 100 > bound:
        return None
    return (
        f"{error:.1f}% validation error is no better than chance ({100 - 100 * chance:.1f}%); "
        "likely causes: "
    )
