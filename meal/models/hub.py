"""What timm and torchvision publish: weights, and the input and classes that they are for.

A library is imported only when one of its networks is requested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meal.core.errors import UserError
from meal.models.architectures import TIMM


@dataclass(frozen=True)
class PublishedInput:
    """The input that published weights expect: side in pixels, and normalisation by channel."""

    size: int
    mean: list[float]
    std: list[float]


def published_input(arch: str) -> PublishedInput:
    """The input that the published weights of an architecture expect.

    Raises:
        UserError: if there are no pretrained weights under that name.
    """
    name = arch.partition("/")[2]
    if arch.startswith(TIMM):
        import timm

        try:
            card = timm.get_pretrained_cfg(name)
        except RuntimeError:  # no such tag
            card = None
        if card is None or not card.has_weights:
            raise UserError(f"{arch} has no pretrained weights; name a tag that has them")
        return PublishedInput(int(card.input_size[-1]), list(card.mean), list(card.std))
    from torchvision.models import get_model_weights

    transforms: Any = get_model_weights(name).DEFAULT.transforms()
    return PublishedInput(int(transforms.crop_size[0]), list(transforms.mean), list(transforms.std))


def published_classes(arch: str) -> int:
    """The number of classes of published weights."""
    name = arch.partition("/")[2]
    if arch.startswith(TIMM):
        import timm

        card: Any = timm.get_pretrained_cfg(name)
        return int(card.num_classes)
    from torchvision.models import get_model_weights

    weights: Any = get_model_weights(name)
    return len(weights.DEFAULT.meta["categories"])


def published_state(arch: str, size: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The published weights of an architecture.

    Args:
        arch: `timm/NAME` or `torchvision/NAME`.
        size: side length of the images in pixels.
        options: keyword arguments of the builder.

    Raises:
        UserError: if the weights are not available.
    """
    name = arch.partition("/")[2]
    try:
        if arch.startswith(TIMM):
            import timm

            arguments = {**size_argument(arch, size), **options}
            network = timm.create_model(name, pretrained=True, **arguments)
        else:
            from torchvision.models import get_model

            network = get_model(name, weights="DEFAULT", **options)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{arch}: its pretrained weights are not available ({reason}); if you are offline, "
            "give a file and its sha256 as weights"
        ) from None
    return dict(network.state_dict())


def size_argument(arch: str, size: int) -> dict[str, int]:
    """The keyword argument for the size of the images, if a timm model needs it."""
    import timm

    card = timm.get_pretrained_cfg(arch.removeprefix(TIMM))
    return {"img_size": size} if card is not None and card.fixed_input_size else {}
