"""Mixup (Zhang et al., ICLR 2018): a batch blended with itself; teachers see the same blend."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def mix(
    images: Tensor, labels: Tensor, classes: int, alpha: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Blend each image with another of its batch, all in one proportion from Beta(alpha, alpha).

    Args:
        images: `(N, C, H, W)`.
        labels: `(N,)`.
        classes: how many there are.
        alpha: above 0; the larger, the nearer to halves.
        seed: decides the proportion and the partners.

    Returns:
        The blends, and their labels as shares `(N, classes)`.
    """
    generator = np.random.default_rng(seed)
    share = float(generator.beta(alpha, alpha))
    partner = torch.from_numpy(generator.permutation(len(images))).to(images.device)
    shares = F.one_hot(labels, classes).float()
    return images.lerp(images[partner], 1 - share), shares.lerp(shares[partner], 1 - share)
