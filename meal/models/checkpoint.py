"""A trained network on disk: `weights.safetensors` and `network.json`, enough to rebuild it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from meal.core.digests import sha256
from meal.core.errors import UserError
from meal.core.files import atomic_folder, check_file, read_sealed, write_errors, write_sealed
from meal.models.factory import build
from meal.models.parts import inner
from meal.models.spec import NetworkSpec

FIX = "dvc repro"
WEIGHTS = "weights.safetensors"  # in a weights folder
_STEPS = "steps"  # in the metadata of the weights file, so that they follow a copy of it
_MOST_LISTED = 5


def save(
    folder: Path, spec: NetworkSpec, state: Mapping[str, Tensor], steps: int | None = None
) -> None:
    """Write a network's state and specification into `folder`, atomically.

    `steps` is how many steps of training are behind the state, if that is known.
    """
    # Clones: parameters may share memory, which the format does not allow.
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }
    with atomic_folder(folder) as temporary:
        path = temporary / WEIGHTS
        with write_errors(path, SafetensorError):
            save_file(tensors, path, None if steps is None else {_STEPS: str(steps)})
        write_sealed(temporary / "network.json", {**asdict(spec), "sha256": sha256(path)})


@dataclass(frozen=True)
class Loaded:
    """A network in eval mode, and its specification."""

    spec: NetworkSpec
    network: nn.Module


def load(folder: Path) -> Loaded:
    """Rebuild the network that `save` wrote.

    Raises:
        UserError: if a file is missing or damaged, or the two do not fit.
    """
    path = folder / WEIGHTS
    card = read_sealed(folder / "network.json", FIX)
    check_file(path, card.get("sha256"), FIX)
    try:
        spec, state = NetworkSpec.read(card), load_file(path)
    except (TypeError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{folder} does not hold a network of this version ({type(error).__name__}: {error}); "
            f"fix: {FIX}"
        ) from None
    network = build(spec)
    try:
        load_state(network, state, str(folder))
    except UserError as error:
        raise UserError(f"{error}; fix: {FIX}") from None
    return Loaded(spec, network.eval())


def training_steps(path: Path) -> int | None:
    """How many steps of training are behind a weights file; None if it does not say."""
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, "pt") as file:
        found = (file.metadata() or {}).get(_STEPS, "")
    return int(found) if found.isdecimal() else None


def load_state(
    network: nn.Module, state: Mapping[str, Tensor], source: str, new: Sequence[str] = ()
) -> None:
    """Load `state` into `network`; names and shapes must match exactly.

    Args:
        network: it keeps what is new.
        state: may lack that, or have it in another shape.
        source: where `state` comes from, for messages.
        new: the names of sub-modules that are not loaded.

    Raises:
        UserError: listing what is missing, unexpected or has another shape.
    """
    prefix, bare = inner(network)
    if prefix and not any(name.startswith(prefix) for name in state):
        network = bare  # saved elsewhere, without our adapter around it
        new = [name.removeprefix(prefix) for name in new]
    kept = tuple(f"{name}." for name in new)
    own, state = (
        {name: value for name, value in each.items() if not name.startswith(kept)}
        for each in (network.state_dict(), state)
    )
    # Older versions of PyTorch did not save this counter; it is unused if momentum is set.
    wanted = {name for name in own if not name.endswith("num_batches_tracked")}
    found = {name for name in state if not name.endswith("num_batches_tracked")}
    faults = {
        "missing": sorted(wanted - found),
        "unexpected": sorted(found - wanted),
        "of another shape": [
            f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
            for name in sorted(wanted & found)
            if state[name].shape != own[name].shape
        ],
    }
    listed = [f"{kind}: {_some(names)}" for kind, names in faults.items() if names]
    if listed:
        raise UserError(f"{source} does not fit the network; {'; '.join(listed)}")
    network.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
