"""A network's specification: stored beside its weights, and enough to rebuild it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from meal.data.prepared import Prepared
from meal.models.architectures import TORCHVISION
from meal.models.hub import published_input
from meal.models.settings import Network, NetworkSlice


@dataclass(frozen=True)
class InputSpec:
    """The input that a network expects, if it differs from the prepared data.

    Attributes:
        size: side length in pixels.
        channels: 3 if grey images are repeated for a network that expects colour.
        mean, std: the normalisation that it expects, by channel, for pixels in [0, 1].
        data_mean, data_std: the normalisation that the pipeline has applied.
    """

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_mean: tuple[float, ...]
    data_std: tuple[float, ...]


@dataclass(frozen=True)
class NetworkSpec:
    """The structure of a network.

    Attributes:
        arch: a name in the zoo, `timm/NAME`, `torchvision/NAME`, or `networks.MODULE:FUNCTION`.
        width: factor on the numbers of channels, for the zoo.
        channels, image_size, classes: of its images and its logits.
        options: keyword arguments of the builder, not for the zoo.
        blocks: sub-modules whose outputs are feature maps; if empty, they are searched for.
        inputs: the input that it expects, if it differs from its images.
        source: a digest of the user's own code that builds it.
    """

    arch: str
    width: float
    channels: int
    image_size: int
    classes: int
    options: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    inputs: InputSpec | None = None
    source: str | None = None

    @classmethod
    def read(cls, card: Mapping[str, Any]) -> NetworkSpec:
        """Read a specification from the JSON that `asdict` gave."""
        inputs = card["inputs"] and {name: _tuple(value) for name, value in card["inputs"].items()}
        return cls(
            **{name: card[name] for name in ("arch", "width", "channels", "image_size", "classes")},
            options=card["options"],
            blocks=tuple(card["blocks"]),
            inputs=InputSpec(**inputs) if inputs else None,
            source=card["source"],
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its images."""
        return self.channels, self.image_size, self.image_size

    @property
    def inner_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's own input, behind the adapter."""
        if self.inputs is None:
            return self.shape
        return self.inputs.channels, self.inputs.size, self.inputs.size


def specify(network: NetworkSlice, data: Prepared) -> NetworkSpec:
    """The specification of a configured network for prepared data."""
    channels, image_size, _ = data.shape
    return NetworkSpec(
        arch=network.arch,
        width=network.width,
        channels=channels,
        image_size=image_size,
        classes=data.classes,
        options=dict(network.options),
        blocks=tuple(network.blocks),
        inputs=_expected_input(network, data),
        source=network.source,
    )


def _expected_input(network: Network, data: Prepared) -> InputSpec | None:
    """The input that a network expects; None if it is that of the prepared data."""
    channels, size, _ = data.shape
    mean, std = data.mean, data.std
    if network.weights == "pretrained":
        published = published_input(network.arch)
        size, mean, std = published.size, published.mean, published.std
        channels = len(mean)
    elif network.arch.startswith(TORCHVISION):
        channels = 3
    if network.input is not None:
        size = network.input.size or size
        if network.input.mean is not None and network.input.std is not None:
            mean, std = network.input.mean, network.input.std
            channels = max(channels, len(mean))
    if (channels, size, size) == data.shape and (mean, std) == (data.mean, data.std):
        return None
    return InputSpec(size, channels, tuple(mean), tuple(std), tuple(data.mean), tuple(data.std))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
