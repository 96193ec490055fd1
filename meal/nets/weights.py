"""Networks from their specification, and their weights on disk.

A weights folder holds `weights.safetensors` and `network.json`, all that is needed to rebuild.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from meal.files import atomic_folder, check_file, disk_errors, read_sealed, sha256, write_sealed
from meal.nets import origins
from meal.nets.blocks import Alignment, BlockNetwork
from meal.nets.inputs import Adapted, InputAdapter
from meal.nets.spec import NetworkSpec
from meal.nets.strides import subsample_first

MEND = "mend it with: dvc repro"


def build(spec: NetworkSpec, seed: int = 0) -> nn.Module:
    """Build a network with random weights drawn from `seed`; the global generator is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = origins.build(spec)
    subsample_first(network)
    if spec.inputs is not None:
        network = Adapted(InputAdapter(spec.inputs), network)
    return network.to(memory_format=torch.channels_last)


def with_blocks(
    network: nn.Module, spec: NetworkSpec, blocks: int, align: Alignment = "spatial"
) -> BlockNetwork:
    """Wrap a network so that it yields logits and up to `blocks` aligned blocks."""
    return BlockNetwork(network, origins.taps(spec), blocks, spec.shape, align)


def save(folder: Path, spec: NetworkSpec, state: dict[str, Tensor]) -> None:
    """Write a network's state and specification into `folder`, whole or not at all."""
    # Clones: parameters may share their memory, which the format does not allow.
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }
    with atomic_folder(folder) as temporary:
        path = temporary / "weights.safetensors"
        with disk_errors(path, SafetensorError):
            save_file(tensors, path)
        write_sealed(temporary / "network.json", {**asdict(spec), "sha256": sha256(path)})


def load(folder: Path) -> tuple[NetworkSpec, nn.Module]:
    """Rebuild the network that `save` wrote, in eval mode.

    Raises:
        ValueError: if a file is missing, damaged, or does not fit the other.
    """
    path = folder / "weights.safetensors"
    try:
        card = read_sealed(folder / "network.json")
        check_file(path, card.get("sha256"))
    except ValueError as error:
        raise ValueError(f"{error}; {MEND}") from None
    try:
        spec = NetworkSpec.read(card)
        network = build(spec)
        network.load_state_dict(load_file(path))
    except (TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{folder} does not hold a network of this version: {reason}; {MEND}"
        ) from None
    return spec, network.eval()
