"""What timm and torchvision publish: weights, and the input and classes that belong to them.

The libraries are imported when one of their networks is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meal.nets.spec import NetworkSpec

TIMM, TORCHVISION = "timm/", "torchvision/"  # what their names begin with


def pretrained_input(arch: str) -> tuple[int, Sequence[float], Sequence[float]]:
    """Size, mean and deviation that belong to published weights."""
    name = arch.partition("/")[2]
    if arch.startswith(TIMM):
        import timm

        card = timm.get_pretrained_cfg(name)
        if card is None or not card.has_weights:
            raise ValueError(f"{arch} has no pretrained weights; name a tag that has")
        return int(card.input_size[-1]), card.mean, card.std
    from torchvision.models import get_model_weights

    transforms: Any = get_model_weights(name).DEFAULT.transforms()
    return int(transforms.crop_size[0]), transforms.mean, transforms.std


def sized(spec: NetworkSpec, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a timm model, with the size of its images where it has to know it."""
    import timm

    card = timm.get_pretrained_cfg(spec.arch.removeprefix(TIMM))
    fixed = card is not None and card.fixed_input_size
    return {"img_size": spec.inner_shape[1], **arguments} if fixed else arguments


def pretrained_classes(arch: str) -> int:
    """How many classes the published weights of an architecture know."""
    name = arch.partition("/")[2]
    if arch.startswith(TIMM):
        import timm

        card: Any = timm.get_pretrained_cfg(name)
        return int(card.num_classes)
    from torchvision.models import get_model_weights

    weights: Any = get_model_weights(name)
    return len(weights.DEFAULT.meta["categories"])


def pretrained_state(spec: NetworkSpec) -> dict[str, Any]:
    """The weights that timm or torchvision publish for an architecture.

    Raises:
        ValueError: if they cannot be had, or are for another number of classes.
    """
    name = spec.arch.partition("/")[2]
    try:
        if spec.arch.startswith(TIMM):
            import timm

            network = timm.create_model(name, pretrained=True, **sized(spec, {**spec.options}))
        else:
            from torchvision.models import get_model

            network = get_model(name, weights="DEFAULT", **spec.options)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{spec.arch}: its pretrained weights cannot be had ({reason}); without a network, "
            "give a file and its sha256 as weights"
        ) from None
    return dict(network.state_dict())
