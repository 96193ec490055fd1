"""Whether a network has learnt anything: its error beside that of a constant prediction."""

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
    if bound >= 1:  # too few images, or too few of the other classes: nothing is clearly better
        bound = chance
    if 1 - error / 100 > bound or chance == 1:
        return None
    return (
        f"{error:.1f}% validation error is not clearly better than chance "
        f"({100 - 100 * chance:.1f}%) on {images} images; likely causes: "
    )
