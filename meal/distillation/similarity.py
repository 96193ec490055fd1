"""Similarity losses (MEAL, section 3.3): a new loss is one function and one entry in `LOSSES`.

Each compares values of the student with values of a teacher, `(N, D)` both, and gives a scalar.
Means run over images, and over values where a loss compares value by value, as in the official
code. `temperature` concerns logits' `ce` and `kl` alone; it comes with Hinton's factor `tau^2`
(Hinton et al., 2015), so that gradients keep their size.
"""

from __future__ import annotations

from collections.abc import Callable

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


def standardise_logits(logits: Tensor) -> Tensor:
    """Logits `(N, C)` of mean 0 and deviation 1 for each image (Sun et al., CVPR 2024).

    The student is asked for the relations between classes, not for the teacher's scale. A constant
    added to an image's logits changes nothing, so log-probabilities serve as well.
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
}
