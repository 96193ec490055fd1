"""Discriminators (MEAL, section 3.4): is an output the teacher's (1) or the student's (0)?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F


class Discriminator(nn.Sequential):
    """`d -> max(16, d/2) -> max(16, d/4) -> 1` with ReLUs in between; it returns a logit.

    The official code adds a final ReLU, which makes the prediction "student" impossible.
    """

    def __init__(self, features: int) -> None:
        first, second = max(16, features // 2), max(16, features // 4)
        super().__init__(
            nn.Linear(features, first),
            nn.ReLU(),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Linear(second, 1),
        )


class _ScaleGradient(torch.autograd.Function):
    """The identity with a scaled gradient; a negative factor is gradient reversal (Ganin, 2015)."""

    @staticmethod
    def forward(ctx: object, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor  # type: ignore[attr-defined]
        return values.view_as(values)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None  # type: ignore[attr-defined]


def scale_gradient(values: Tensor, factor: float) -> Tensor:
    """Return `values`; their gradient is multiplied by `factor`."""
    scaled: Tensor = _ScaleGradient.apply(values, factor)
    return scaled


def discriminate(
    discriminator: nn.Module, student: Tensor, teacher: Tensor
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of telling `teacher` (1) from `student` (0), `(N, D)` each.

    Returns:
        The mean loss over both sides, and the discriminator's accuracy in [0, 1], detached.
    """
    count = len(student)
    logits = discriminator(torch.cat([student, teacher])).squeeze(1)
    # BCE with logits: softplus(z) for the student, softplus(-z) for the teacher.
    signed = torch.cat([logits[:count], -logits[count:]])
    return F.softplus(signed).mean(), (signed.detach() < 0).float().mean()


def fool(discriminator: nn.Module, student: Tensor) -> Tensor:
    """Binary cross-entropy of passing as the teacher; the discriminator gets no gradient."""
    frozen = {name: value.detach() for name, value in discriminator.named_parameters()}
    logits: Tensor = functional_call(discriminator, frozen, (student,))
    return F.softplus(-logits).mean()
