"""The device that a stage computes on, and whether it computes deterministically."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from meal.core import ranks
from meal.core.collectives import join
from meal.core.errors import UserError
from meal.core.runtime import Runtime


def open_device(runtime: Runtime) -> torch.device:
    """The device of this process, set up as `runtime` says, together with the other ranks.

    Raises:
        UserError: if the device does not exist.
    """
    device = select_device(runtime.device)
    if runtime.threads != "auto":
        torch.set_num_threads(runtime.threads)
    set_determinism(runtime.deterministic)
    join(device)
    return device


def select_device(name: str) -> torch.device:
    """The device of `runtime.device`; `auto` is a GPU where there is one.

    Raises:
        UserError: if the named device does not exist.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"runtime.device={name!r}: no CUDA device found; allowed: auto, cpu")
    count = torch.cuda.device_count()
    if name.startswith("cuda:") and int(name[5:]) >= count:
        raise UserError(
            f"runtime.device={name!r}: {count} CUDA device(s) found; allowed: auto, cpu, cuda, "
            f"cuda:0 to cuda:{count - 1}"
        )
    if ranks.size() > 1 and name.startswith("cuda"):
        if name != "cuda" or ranks.local_rank() >= count:
            raise UserError(
                f"runtime.device={name!r}: {ranks.size()} processes, and {count} CUDA device(s); "
                "allowed: one process per device, with auto or cuda"
            )
        name = f"cuda:{ranks.local_rank()}"
        torch.cuda.set_device(ranks.local_rank())
    return torch.device(name)


def total_memory(device: torch.device) -> int:
    """The bytes of memory that a device has, in use or not."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def processor() -> str:
    """The name of this machine's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    names = [line for line in text.splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor()


def environment(device: torch.device) -> dict[str, str | int]:
    """What decides the last bits of a result besides parameters, inputs and code."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "processor": gpu or processor(),
        "threads": torch.get_num_threads(),
        "processes": ranks.size(),
        "torch": str(torch.__version__),
    }


def set_determinism(deterministic: bool) -> None:
    """Apply `runtime.deterministic`: use algorithms that give the same bits in every run."""
    # cuBLAS reads this at start-up; without it, its results vary between runs.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Like `use_deterministic_algorithms`, which imports torch's compiler: 1.3 seconds.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    torch.backends.cudnn.benchmark = not deterministic
