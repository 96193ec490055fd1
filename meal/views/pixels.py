"""The pixels of a view without a pipeline, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from meal.core.errors import UserError
from meal.views.families import family_of
from meal.views.mixing import Kinds


def apply(
    images: Tensor | NDArray[Any],
    rows: Tensor | NDArray[Any] | Sequence[int],
    view: int,
    views: Mapping[str, Any],
    labels: Tensor | NDArray[Any] | None = None,
) -> Tensor:
    """The pixels `(B, size, size, C)`, from 0 to 255, of view `view` of the images of `rows`.

    They are uint8, or float32 if they are interpolated or mixed.

    Args:
        images: all images, uint8 `(N, H, W, C)`, in the order in which the cache has them.
        rows: the numbers of the images, `(B,)`.
        view: the number of the view.
        views: what identifies the views: `meal.targets.open(folder).views`.
        labels: of all images, `(N,)`, -1 for those without a label: only images of one kind are
            mixed. Needed if they are mixed.

    Raises:
        UserError: if another version of the code made these views, or labels are needed.
    """
    family, whole = family_of(views), torch.as_tensor(images)
    height, width = whole.shape[1:3]
    side = int(views.get("image_size", height))
    chosen = torch.as_tensor(rows, dtype=torch.int64)

    def shown(numbers: Tensor) -> Tensor:
        parameters = family.crops.parameters(numbers, view, (height, width))
        places, source = torch.arange(len(numbers)), family.crops.source(whole[numbers])
        return family.pixels(source, places, numbers, view, parameters, side)

    if not family.mixing:
        return shown(chosen)
    if labels is None:
        raise UserError(
            "these views are mixed, with others that have a label or have none, too: give labels"
        )
    mix = family.mixing.draw(chosen, view, Kinds(torch.as_tensor(labels)), side)
    return mix.images(shown(chosen), shown(mix.partners))
