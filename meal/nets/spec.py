"""All that decides a network's structure: written beside its weights, enough to rebuild it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class InputSpec:
    """What a network wants to see, where that is not what the prepared data give.

    Attributes:
        size: pixels a side.
        channels: 3 where grey images are repeated for a network of colours.
        mean, deviation: what its pixels, from 0 to 1, are normalised with, by channel.
        data_mean, data_deviation: what the pipeline has normalised them with.
    """

    size: int
    channels: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    data_mean: tuple[float, ...]
    data_deviation: tuple[float, ...]


@dataclass(frozen=True)
class NetworkSpec:
    """A network's structure.

    Attributes:
        arch: a name of the zoo, `timm/NAME`, `torchvision/NAME`, or `package.module:factory`.
        width: factor on the numbers of channels, for the zoo.
        channels, image_size, classes: of the images that it is given, and of its answers.
        options: keyword arguments for the builder, beyond the zoo.
        blocks: sub-modules whose outputs are feature maps; empty where they are found.
        inputs: what the network sees instead of the images as they are.
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
        """The specification that `asdict` gave, back from JSON."""
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
        """Channels, height and width of the images that it is given."""
        return self.channels, self.image_size, self.image_size

    @property
    def inner_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what the network itself sees."""
        if self.inputs is None:
            return self.shape
        return self.inputs.channels, self.inputs.size, self.inputs.size


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
