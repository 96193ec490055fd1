"""Similarity losses (MEAL, section 3.3). A new loss is one function and one entry in `LOSSES`.

Each compares the student's values with a teacher's, both `(N, D)`, and returns a scalar. Losses
that compare value by value are means over images and values, as in the official code; the others
are means over images. `relations`, for blocks only, compares images with each other. `temperature`
applies only to `ce` and `kl` of logits, with the factor `tau^2` (Hinton et al., 2015), which
preserves the scale of the gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`ce`: cross-entropy of the student against the softened teacher."""
    soft = F.softmax(teacher / temperature, dim=1)
    return -(soft * F.log_softmax(student / temperature, dim=1)).sum(dim=1).mean() * temperature**2


def kullback_leibler(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`kl`: divergence of the student from the softened teacher."""
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2


def l1(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`l1`: mean absolute difference of the raw values."""
    return F.l1_loss(student, teacher)


def l2(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`l2`: mean squared difference of the raw values."""
    return F.mse_loss(student, teacher)


def l1_soft(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`l1_soft`: mean absolute difference after a softmax of both sides."""
    return F.l1_loss(F.softmax(student, dim=1), F.softmax(teacher, dim=1))


def l2_soft(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`l2_soft`: mean squared difference after a softmax of both sides."""
    return F.mse_loss(F.softmax(student, dim=1), F.softmax(teacher, dim=1))


def relations(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`relations`: squared difference of how similar the images of a batch are to each other.

    The values of the two sides need no common axes: each side has its own matrix of inner products
    `(N, N)`, with rows of unit length (Tung and Mori, ICCV 2019; their sum, divided by N).
    """
    with torch.autocast(student.device.type, enabled=False):  # bfloat16 is too coarse for products
        own, theirs = (F.normalize(side @ side.T, dim=1) for side in (student, teacher))
        return (own - theirs).square().sum(dim=1).mean()


def standardise_logits(logits: Tensor) -> Tensor:
    """Logits `(N, C)` with mean 0 and std 1 per image (Sun et al., CVPR 2024).

    The student then learns the relations between classes instead of the teacher's scale. Adding a
    constant to an image's logits changes nothing, so log-probabilities work as well.
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (logits.std(dim=1, keepdim=True) + 1e-7)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "ce": cross_entropy,
    "kl": kullback_leibler,
    "l1": l1,
    "l2": l2,
    "l1_soft": l1_soft,
    "l2_soft": l2_soft,
    "relations": relations,
}
