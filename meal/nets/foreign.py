"""Weights from elsewhere: safetensors, or PyTorch's own format without the code it may carry."""

from __future__ import annotations

import pickle
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from meal.config.schema import WeightsFile
from meal.files import sha256
from meal.nets.inputs import Adapted

NESTS = ("net", "state_dict", "model")  # under which keys trainers put the state
SHOWN = 5


def locate(weights: WeightsFile, key: str, downloads: Path) -> Path:
    """The file of `weights`, downloaded if need be, with its checksum compared.

    Args:
        weights: a file or an address, and its SHA-256.
        key: the key in params.yaml, for messages.
        downloads: the folder for files from the network.

    Raises:
        ValueError: if the file cannot be had, or is not the one that was meant.
    """
    if weights.file is not None:
        path = Path(weights.file)
    else:
        assert weights.url is not None
        path = downloads / weights.sha256
        if not path.is_file():
            downloads.mkdir(parents=True, exist_ok=True)
            print(f"downloading {weights.url} to {path}", flush=True)
            try:  # whole or not at all: the file takes its name when its checksum is right
                torch.hub.download_url_to_file(weights.url, str(path), weights.sha256)
            except (OSError, RuntimeError, urllib.error.URLError) as error:
                raise ValueError(
                    f"{key}.url={weights.url!r} cannot be downloaded: {error}; give the file itself"
                ) from None
    if not path.is_file():
        raise ValueError(f"{key}.file={str(path)!r}: no such file is here")
    found = sha256(path)
    if found != weights.sha256:
        raise ValueError(f"{key}.sha256={weights.sha256!r}: {path} has {found}")
    return path


def read_state(path: Path) -> dict[str, Tensor]:
    """The state of a network in a `.safetensors`, `.pt`, `.pth` or `.t7` file.

    A state that lies under `net`, `state_dict` or `model` is found; a `module.` before every name,
    as DataParallel leaves it, is dropped.

    Raises:
        ValueError: if there is none, or the file holds more than data.
    """
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):  # no function that is refused: bytes of something else
            raise ValueError(f"{path} is not a file of weights") from None
        raise ValueError(
            f"{path} holds more than weights: it would run code when read, and was not read; "
            "have its owner save the state_dict, best as safetensors"
        ) from None
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a file of weights: {reason}") from None
    while isinstance(state, Mapping):
        inside = [state[nest] for nest in NESTS if isinstance(state.get(nest), Mapping)]
        if not inside:
            break
        state = inside[0]
    tensors = isinstance(state, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    )
    if not tensors or not state:
        raise ValueError(
            f"{path} holds no state of a network, neither at its top nor under {', '.join(NESTS)}"
        )
    while all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return dict(state)


def load_state(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load `state` into `network`, all of it and nothing else.

    Raises:
        ValueError: naming what is missing, unexpected or of another shape.
    """
    if isinstance(network, Adapted) and not any(name.startswith("inner.") for name in state):
        network = network.inner  # saved elsewhere, without our adapter around it
    own = network.state_dict()
    # A counter that older PyTorch did not save, and nothing reads with a momentum set.
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
    said = [f"{kind}: {_some(names)}" for kind, names in faults.items() if names]
    if said:
        raise ValueError(f"{source} does not fit the network; {'; '.join(said)}")
    network.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
