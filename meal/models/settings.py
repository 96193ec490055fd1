"""`networks` in params.yaml: what each name stands for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from meal.core.digests import sha256
from meal.core.fields import Integer, Number, Seed, Sha256
from meal.core.settings import Section


def _is_json(value: object) -> bool:
    """Whether a value survives JSON, in which slices and specifications hold it."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port  # raises if it is not a number
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and port != 0 and " " not in url


class WeightsFile(Section):
    """Existing weights: a file or an https URL, always with the SHA-256 of the file."""

    file: str | None = None
    url: str | None = None
    sha256: Sha256

    @model_validator(mode="before")
    @classmethod
    def _print_digest(cls, given: Any) -> Any:
        """Without a digest, say which one the file has, to be copied."""
        file = given.get("file") if isinstance(given, Mapping) else None
        if isinstance(file, str) and "sha256" not in given:
            if not Path(file).is_file():
                raise ValueError(f"file={file!r}: no such file")
            with contextlib.suppress(OSError):
                raise ValueError(f"sha256: missing; {file} has {sha256(Path(file))}")
        return given

    @model_validator(mode="after")
    def _one_place(self) -> WeightsFile:
        if (self.file is None) == (self.url is None):
            raise ValueError("file: give either a file or a url")
        if self.url is not None and not _is_https(self.url):
            raise ValueError(f"url={self.url!r}: expected an address that begins with https://")
        return self


class NetworkInput(Section):
    """The input that a network expects, if it differs from the prepared images."""

    size: Annotated[Integer, Field(ge=8, le=1024)] | None = None
    mean: list[Annotated[Number, Field(ge=-1000, le=1000)]] | None = None
    std: list[Annotated[Number, Field(ge=1e-9, le=1000)]] | None = None

    @model_validator(mode="after")
    def _by_channel(self) -> NetworkInput:
        given = [values for values in (self.mean, self.std) if values is not None]
        if len(given) == 1 or any(len(values) not in (1, 3) for values in given):
            raise ValueError("mean: mean and std go together, with one or three numbers each")
        if given and len(given[0]) != len(given[1]):
            raise ValueError("mean: expected as many numbers as in std")
        return self


class Network(Section):
    """What a name under `networks` stands for.

    `options` are keyword arguments of the builder, `blocks` names the sub-modules whose feature
    maps are compared, and `input` is the input that the network expects. `weights` are loaded into
    a teacher instead of training it; with `head: new`, teacher or student starts from them and is
    trained, with a new head for the classes of the dataset.
    """

    arch: str
    width: Annotated[Number, Field(ge=0.01, le=64)] = 1.0
    seed: Seed = 0
    options: dict[str, Any] = {}
    blocks: list[Annotated[str, Field(min_length=1)]] = []
    weights: Literal["pretrained"] | WeightsFile | None = None
    head: Literal["new"] | None = None
    input: NetworkInput | None = None

    @property
    def is_trained(self) -> bool:
        """Whether it is trained here, from random weights or with a new head."""
        return self.weights is None or self.head == "new"

    @model_validator(mode="after")
    def _new_head_on_weights(self) -> Network:
        if self.head == "new" and self.weights is None:
            raise ValueError(
                "head='new': without weights, the whole network is new; allowed: with weights, or "
                "remove head"
            )
        return self

    @model_validator(mode="after")
    def _options_are_json(self) -> Network:
        if not _is_json(self.options):
            raise ValueError(
                f"options={self.options}: expected texts, finite numbers, truth values, null, "
                "lists and mappings"
            )
        return self


class NetworkSlice(Network):
    """A network, and the digest of the user's own code that builds it."""

    source: str | None = None
