"""`networks` in params.yaml: what each name stands for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from meal.core.fields import Integer, Positive, Seed, Sha256
from meal.core.settings import Section


class WeightsFile(Section):
    """Existing weights: a file or an https address, always with the SHA-256 of the file."""

    file: str | None = None
    url: str | None = None
    sha256: Sha256

    @model_validator(mode="after")
    def _one_place(self) -> WeightsFile:
        if (self.file is None) == (self.url is None):
            raise ValueError("file: give either a file or a url")
        if self.url is not None and not self.url.startswith("https://"):
            raise ValueError(f"url={self.url!r}: an address that begins with https:// is expected")
        return self


class NetworkInput(Section):
    """The input that a network was trained on, if it differs from the training split's."""

    size: Annotated[Integer, Field(ge=8, le=1024)] | None = None
    mean: list[float] | None = None
    std: list[Positive] | None = None

    @model_validator(mode="after")
    def _by_channel(self) -> NetworkInput:
        given = [values for values in (self.mean, self.std) if values is not None]
        if len(given) == 1 or any(len(values) not in (1, 3) for values in given):
            raise ValueError("mean: mean and std go together, with one or three numbers each")
        if given and len(given[0]) != len(given[1]):
            raise ValueError("mean: as many numbers as in std are expected")
        return self


class Network(Section):
    """What a name under `networks` stands for.

    `options` are keyword arguments of the builder, `blocks` names the sub-modules whose features
    are compared, `weights` are loaded into a teacher instead of training it, and `input` is what
    the network expects to see.
    """

    arch: str
    width: Positive = 1.0
    seed: Seed = 0
    options: dict[str, Any] = {}
    blocks: list[str] = []
    weights: Literal["pretrained"] | WeightsFile | None = None
    input: NetworkInput | None = None


class NetworkSlice(Network):
    """A network, and the digest of the user's own code that builds it."""

    source: str | None = None
