"""The k largest probabilities of a soft target, for datasets with many classes.

The remaining probability is spread evenly over the other classes: FKD's marginal smoothing (Shen
and Xing, ECCV 2022, section 3.3). In float16, ten of a thousand classes take 40 bytes instead of
2,000.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SMALLEST = 1e-8  # remaining probability: rounding may leave less than zero


def index_dtype(classes: int) -> np.dtype[np.unsignedinteger]:
    """The smallest type that holds a class number."""
    return np.dtype(np.uint16 if classes <= 2**16 else np.uint32)


def compress(log_probabilities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """From log-probabilities `(N, C)` to the k most likely classes and probabilities `(N, k)`."""
    values, indices = log_probabilities.float().exp().topk(k, dim=1)
    return indices, values


def expand(
    indices: NDArray[np.unsignedinteger], values: NDArray[np.floating], classes: int
) -> Tensor:
    """From classes and probabilities `(N, k)` to float32 log-probabilities `(N, C)`."""
    largest = torch.from_numpy(values.astype(np.float32))
    k = largest.shape[1]
    rest = (1 - largest.sum(dim=1, keepdim=True)).clamp(min=_SMALLEST) / (classes - k)
    probabilities = rest.expand(-1, classes).clone()
    probabilities.scatter_(
        1, torch.from_numpy(indices.astype(np.int64)), largest.clamp(min=_SMALLEST)
    )
    return probabilities.log()
