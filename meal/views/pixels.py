"""The pixels of a view without a pipeline, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from meal.views.families import family_of


def apply(
    images: Tensor | NDArray[Any],
    rows: Tensor | NDArray[Any] | Sequence[int],
    view: int,
    views: Mapping[str, Any],
    size: int | None = None,
) -> Tensor:
    """The pixels `(B, size, size, C)`, from 0 to 255, of view `view` of the images of `rows`.

    Args:
        images: all images, uint8 `(N, H, W, C)`, in the order in which the cache has them.
        rows: the numbers of the images, `(B,)`.
        view: the number of the view.
        views: what identifies the views: `meal.targets.open(folder).views`.
        size: of the result, in pixels; None for that of the images.

    Raises:
        UserError: if another version of the code made these views.
    """
    family, whole = family_of(views), torch.as_tensor(images)
    chosen = torch.as_tensor(rows, dtype=torch.int64, device=whole.device)
    height, width = whole.shape[1:3]
    parameters = family.parameters(chosen, view, (height, width))
    places = torch.arange(len(chosen), device=whole.device)
    return family.take(family.source(whole[chosen]), places, parameters, size or height)
