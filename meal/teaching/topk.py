"""The k largest probabilities of an answer, for datasets of many classes.

What is left over is spread evenly over the other classes: FKD's marginal smoothing (Shen and Xing,
ECCV 2022, section 3.3). Ten of a thousand classes take 40 bytes in float16, the whole answer 2,000.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SMALLEST = 1e-8  # of the remainder: rounding may leave less than nothing


def index_dtype(classes: int) -> np.dtype[np.unsignedinteger]:
    """The smallest type that holds a class's number."""
    return np.dtype(np.uint16 if classes <= 2**16 else np.uint32)


def compress(log_probabilities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities `(N, C)` to the indices and values `(N, k)` of the largest, as shares."""
    values, indices = log_probabilities.float().exp().topk(k, dim=1)
    return indices, values


def expand(
    indices: NDArray[np.unsignedinteger], values: NDArray[np.floating], classes: int
) -> Tensor:
    """Indices and shares `(N, k)` to float32 log-probabilities `(N, C)`, the rest spread evenly."""
    shares = torch.from_numpy(values.astype(np.float32))
    k = shares.shape[1]
    rest = (1 - shares.sum(dim=1, keepdim=True)).clamp(min=_SMALLEST) / (classes - k)
    whole = rest.expand(-1, classes).clone()
    whole.scatter_(1, torch.from_numpy(indices.astype(np.int64)), shares.clamp(min=_SMALLEST))
    return whole.log()
