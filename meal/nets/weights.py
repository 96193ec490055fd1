"""Networks from their specification, and their weights on disk.

A weights folder holds `weights.safetensors` and `network.json`, all that is needed to rebuild.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from meal.config.schema import Network
from meal.files import atomic_folder, read_sealed, sha256, write_sealed
from meal.nets.blocks import BlockNetwork
from meal.nets.zoo import ZOO


@dataclass(frozen=True)
class NetworkSpec:
    """All that decides a network's structure.

    Attributes:
        arch: a key of the zoo.
        width: factor on the numbers of channels.
        channels, image_size, classes: of its input and output.
    """

    arch: str
    width: float
    channels: int
    image_size: int
    classes: int

    @classmethod
    def of(cls, network: Network, shape: tuple[int, int, int], classes: int) -> NetworkSpec:
        """The specification of a configured network for images of `shape` (C, H, W)."""
        return cls(network.arch, network.width, shape[0], shape[1], classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an input."""
        return self.channels, self.image_size, self.image_size


def build(spec: NetworkSpec, seed: int = 0) -> nn.Module:
    """Build a network with random weights drawn from `seed`; the global generator is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ZOO[spec.arch].build(spec.channels, spec.classes, spec.width, spec.image_size)
    return network.to(memory_format=torch.channels_last)


def with_blocks(network: nn.Module, spec: NetworkSpec, blocks: int) -> BlockNetwork:
    """Wrap a network so that it yields logits and up to `blocks` aligned blocks."""
    return BlockNetwork(network, ZOO[spec.arch].taps, blocks, spec.shape)


def save(folder: Path, spec: NetworkSpec, state: dict[str, Tensor]) -> None:
    """Write a network's state and specification into `folder`, whole or not at all."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with atomic_folder(folder) as temporary:
        path = temporary / "weights.safetensors"
        save_file(tensors, path)
        write_sealed(temporary / "network.json", {**asdict(spec), "sha256": sha256(path)})


def load(folder: Path) -> tuple[NetworkSpec, nn.Module]:
    """Rebuild the network that `save` wrote, in eval mode.

    Raises:
        ValueError: if a file is missing, damaged, or does not fit the other.
    """
    card = read_sealed(folder / "network.json")
    path = folder / "weights.safetensors"
    if not path.is_file() or sha256(path) != card["sha256"]:
        raise ValueError(f"{path} is missing or damaged; mend it with: dvc repro")
    try:
        spec = NetworkSpec(**{field.name: card[field.name] for field in fields(NetworkSpec)})
        network = build(spec)
        network.load_state_dict(load_file(path))
    except (TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} does not hold a network of this version: {error}") from None
    return spec, network.eval()
