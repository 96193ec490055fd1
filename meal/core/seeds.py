"""Stateless random draws: a counter-based hash of tensors, and seeds derived by purpose."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


class Purpose(IntEnum):
    """What a seed is for: the same seed in params.yaml gives each purpose different draws."""

    TEACHER = 1
    BASELINE = 2
    STUDENT = 3
    SHUFFLE = 4
    LAYERS = 5
    DISCRIMINATORS = 6
    SELECTION = 7


def derive_seed(seed: int, *parts: int) -> int:
    """A seed for one purpose: a hash of `seed` and the integers that identify the purpose."""
    return int(hash_integers(seed, *parts))


def mix(value: Tensor, salt: Tensor | int) -> Tensor:
    """Hash 32-bit integers, held in int64, with a salt: MurmurHash3's finalizer (Appleby, 2011)."""
    value = (value ^ salt) & _MASK
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _MASK
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)


def hash_integers(seed: int, *parts: Tensor | int) -> Tensor:
    """Hash a seed (up to 63 bits) and integers, broadcast together, to 32 bits in int64.

    Equal integers give equal hashes on every device. The result is on the device of the tensors in
    `parts`, or on the CPU if there are none.
    """
    device = next((part.device for part in parts if isinstance(part, Tensor)), None)
    state = mix(torch.tensor(seed & _MASK, device=device), (seed >> 32) ^ 0x9E3779B9)
    for position, part in enumerate(parts):
        value = torch.as_tensor(part, device=device)
        state = mix(mix(value & _MASK, 0x7F4A7C15 + position) + state, value >> 32)
    return state


def uniform(key: Tensor, stream: int) -> Tensor:
    """A float64 in [0, 1) for each 32-bit key; streams are independent."""
    return mix(key, stream).double() / 2**32
