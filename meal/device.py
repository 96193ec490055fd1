"""The device that a stage computes on."""

from __future__ import annotations

import os

import torch

from meal.config.schema import Runtime


def select_device(runtime: Runtime) -> torch.device:
    """The device of `runtime.device`; `auto` is a GPU where there is one.

    Raises:
        ValueError: if the named device is not there.
    """
    name = runtime.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"runtime.device={name!r}: no CUDA device is here; allowed: auto, cpu")
    if name.startswith("cuda:") and int(name[5:]) >= torch.cuda.device_count():
        raise ValueError(
            f"runtime.device={name!r}: {torch.cuda.device_count()} CUDA device(s) are here; "
            "allowed: auto, cpu, cuda, cuda:0 and up"
        )
    # cuBLAS needs a workspace of fixed size to be deterministic, said before it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(runtime.deterministic)
    torch.backends.cudnn.benchmark = not runtime.deterministic
    return torch.device(name)
