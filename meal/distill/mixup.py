"""Mixup (Zhang et al., ICLR 2018): each image is mixed with another from its batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def mix(
    images: Tensor, labels: Tensor, classes: int, alpha: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Mix each image with another from its batch, with one weight from Beta(alpha, alpha) for all.

    Labelled images are mixed with labelled ones, so that no label is lost.

    Args:
        images: `(N, C, H, W)`.
        labels: `(N,)`; -1 for images without a label.
        classes: the number of classes.
        alpha: above 0; larger values mix more evenly.
        seed: for the weight and the partners.

    Returns:
        The mixed images, and their labels as probabilities `(N, classes)`; zeros for images
        without a label.
    """
    generator = np.random.default_rng(seed)
    weight = float(generator.beta(alpha, alpha))
    # A random order of all images, in which each kind then takes the places of its own kind.
    order = torch.from_numpy(generator.permutation(len(images))).to(images.device)
    known = labels >= 0
    kind_of_order, kind = (values.int().argsort(stable=True) for values in (known[order], known))
    partner = torch.empty_like(order)
    partner[kind] = order[kind_of_order]
    one_hot = F.one_hot(labels.clamp(min=0), classes).float()
    mixed = one_hot.lerp(one_hot[partner], 1 - weight) * known[:, None]
    return images.lerp(images[partner], 1 - weight), mixed
