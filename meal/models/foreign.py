"""Weights files from elsewhere.

They are read as data: safetensors, or PyTorch's own format without any code in it.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from meal.core.digests import sha256
from meal.core.errors import UserError
from meal.core.paths import user_folder
from meal.models.checkpoint import load_state
from meal.models.heads import head_names
from meal.models.hub import published_classes, published_state
from meal.models.settings import NetworkSlice, WeightsFile
from meal.models.spec import NetworkSpec

STATE_KEYS = ("net", "state_dict", "model_state_dict", "model")  # where trainers nest the state
_PREFIXES = ("module.", "_orig_mod.")  # that DataParallel and torch.compile add to every name
_MOST_NESTED = 3


def load_foreign(
    network: nn.Module, weights: WeightsFile, key: str, new: Sequence[str] = ()
) -> None:
    """Load weights from elsewhere into `network`.

    Args:
        network: its whole state must be in the file, but for what is new.
        weights: a file or a URL, with its SHA-256.
        key: the key in params.yaml, for messages.
        new: the names of sub-modules that are not loaded.

    Raises:
        UserError: if the file is not available, has another checksum, or does not fit.
    """
    path = locate(weights, key)
    load_state(network, read_state(path), f"{key}: {path}", new)


def load_weights(network: nn.Module, spec: NetworkSpec, config: NetworkSlice, key: str) -> None:
    """Load the weights that `networks.NAME.weights` names, if any.

    Args:
        network: keeps its head with `head: new`.
        spec: its specification.
        config: its entry in params.yaml.
        key: the key of the weights in params.yaml, for messages.

    Raises:
        UserError: if they are not available, or do not fit.
    """
    new = head_names(spec) if config.head == "new" else []
    if config.weights == "pretrained":
        known = published_classes(spec.arch)
        if not new and known != spec.classes:
            raise UserError(
                f"{key}='pretrained': {spec.arch} has {known} classes, but the dataset has "
                f"{spec.classes}; add head: new to train it on these classes"
            )
        state = published_state(spec.arch, spec.inner_shape[1], spec.options)
        load_state(network, state, f"{key}: the published state", new)
    elif config.weights is not None:
        load_foreign(network, config.weights, key, new)


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

    A state nested under one of `STATE_KEYS` is unwrapped, and the prefixes that DataParallel and
    torch.compile add to every name are removed.

    Raises:
        UserError: if the file holds no state, holds code, or holds numbers that are not finite.
    """
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it is TorchScript: an error follows
                state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):  # no refused function: not a pickle at all
            raise UserError(f"{path} is not a weights file") from None
        raise UserError(
            f"{path} holds more than weights: loading it would run code, so it was not read; ask "
            "its owner for the state_dict alone, preferably as safetensors"
        ) from None
    except Exception as error:  # foreign bytes fail in any way
        if "TorchScript" in str(error):
            raise UserError(f"{path} is a TorchScript archive; save its state_dict()") from None
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
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{path}: {name} has values that are not finite")
    while prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)
