"""Weights: our own folders of weights and specification, and weights files from elsewhere.

A weights folder holds `weights.safetensors` and `network.json`, enough to rebuild the network.
Files are read as data: safetensors, or PyTorch's own format without any code in it.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from meal.core.digests import sha256
from meal.core.errors import UserError
from meal.core.files import atomic_folder, check_file, read_sealed, write_errors, write_sealed
from meal.core.paths import user_folder
from meal.models.adapter import Adapted
from meal.models.factory import build
from meal.models.settings import WeightsFile
from meal.models.spec import NetworkSpec

FIX = "dvc repro"
WEIGHTS = "weights.safetensors"  # in a weights folder
STATE_KEYS = ("net", "state_dict", "model")  # where other trainers nest the state
_STEPS = "steps"  # in the metadata of the weights file, so that they follow a copy of it
_MOST_LISTED = 5
_MOST_NESTED = 3


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


def load_foreign(network: nn.Module, weights: WeightsFile, key: str) -> None:
    """Load weights from elsewhere into `network`.

    Args:
        network: its whole state must be in the file.
        weights: a file or a URL, with its SHA-256.
        key: the key in params.yaml, for messages.

    Raises:
        UserError: if the file is not available, has another checksum, or does not fit.
    """
    path = locate(weights, key)
    load_state(network, read_state(path), f"{key}: {path}")


def locate(weights: WeightsFile, key: str) -> Path:
    """The file of `weights`, downloaded if necessary, after comparing its checksum."""
    if weights.file is not None:
        path = Path(weights.file)
    else:
        assert weights.url is not None
        downloads = user_folder() / "weights"
        path = downloads / weights.sha256
        if not path.is_file():
            downloads.mkdir(parents=True, exist_ok=True)
            print(f"downloading {weights.url} to {path}", flush=True)
            try:  # atomic: the file gets its name once its checksum is verified
                torch.hub.download_url_to_file(weights.url, str(path), weights.sha256)
            except (OSError, RuntimeError, ValueError, HTTPException) as error:
                raise UserError(
                    f"{key}.url={weights.url!r} cannot be downloaded: {error}; download it "
                    "yourself and give the file instead"
                ) from None
    if not path.is_file():
        raise UserError(f"{key}.file={str(path)!r}: no such file")
    found = sha256(path)
    if found != weights.sha256:
        raise UserError(f"{key}.sha256={weights.sha256!r}: {path} has {found}")
    return path


def read_state(path: Path) -> dict[str, Tensor]:
    """The state of a network in a `.safetensors`, `.pt`, `.pth` or `.t7` file.

    A state nested under `net`, `state_dict` or `model` is unwrapped, and the prefix `module.` that
    DataParallel adds to every name is removed.

    Raises:
        UserError: if the file holds no state, or holds code.
    """
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):  # no refused function: not a pickle at all
            raise UserError(f"{path} is not a weights file") from None
        raise UserError(
            f"{path} holds more than weights: loading it would run code, so it was not read; ask "
            "its owner for the state_dict alone, preferably as safetensors"
        ) from None
    except Exception as error:  # foreign bytes fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a weights file: {reason}") from None
    for _ in range(_MOST_NESTED):
        if isinstance(state, Mapping):
            inside = [state[key] for key in STATE_KEYS if isinstance(state.get(key), Mapping)]
            state = inside[0] if inside else state
    tensors = isinstance(state, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    )
    if not tensors or not state:
        raise UserError(
            f"{path} holds no network state, neither at the top level nor under "
            f"{', '.join(STATE_KEYS)}"
        )
    while all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return dict(state)


def load_state(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load `state` into `network`; names and shapes must match exactly.

    Raises:
        UserError: listing what is missing, unexpected or has another shape.
    """
    if isinstance(network, Adapted) and not any(name.startswith("inner.") for name in state):
        network = network.inner  # saved elsewhere, without our adapter around it
    own = network.state_dict()
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
