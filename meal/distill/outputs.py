"""One output of the student that is compared with the teachers': the logits, or a block."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from meal.distill.discriminator import Discriminator, discriminate, fool, scale_gradient
from meal.distill.settings import Adversarial, Method
from meal.distill.similarity import LOSSES, standardise_logits


class ComparedOutput(nn.Module):
    """What belongs to one output: its projection, norm, discriminator, losses and weights.

    Attributes:
        block: the number of the block; None for the logits.
        teacher: the only teacher it is compared with; None for any.
        gamma: the weight of its similarity loss.
        eta: the weight of its discriminator's gradient to the student.
        discriminator: None if there is none.
    """

    def __init__(
        self,
        method: Method,
        size: int,
        gamma: float,
        eta: float,
        block: int | None = None,
        teacher: str | None = None,
        projection: nn.Module | None = None,
    ) -> None:
        """Set up an output of `size` values."""
        super().__init__()
        self.block, self.teacher, self.gamma, self.eta = block, teacher, gamma, eta
        self.projection = projection or nn.Identity()
        norm = block is not None and method.norm == "standardise"
        self.norm = nn.BatchNorm1d(size, affine=False) if norm else nn.Identity()
        discriminated = method.adversarial != "off" and eta > 0
        self.discriminator = Discriminator(size) if discriminated else None
        self._loss = _similarity_loss(method, is_block=block is not None)

    def forward(self, values: Tensor, rows: Tensor | None) -> Tensor:
        """Prepare the student's values `(N, D)` for comparison.

        Args:
            values: as the student returns them.
            rows: the rows of the batch for which the teacher has values; None for all.
        """
        prepared: Tensor = self.norm(self.projection(values))
        return prepared if rows is None else prepared[rows]

    def discriminated(self, values: Tensor) -> Tensor:
        """What the discriminator sees of either side's values `(N, D)`.

        Logits are centred per image: softmax ignores their mean, which alone would tell the sides
        apart.
        """
        return values - values.mean(dim=1, keepdim=True) if self.block is None else values

    def similarity(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The similarity loss of the student's and a teacher's values, `(N, D)` both."""
        return self._loss(student, teacher)


class Pair(NamedTuple):
    """An output with the student's values and a teacher's, `(N, D)` both."""

    output: ComparedOutput
    student: Tensor
    teacher: Tensor


class AdversarialLosses(NamedTuple):
    """What one discriminator contributes; `fooling` is None unless `non_saturating`."""

    discriminator: Tensor
    accuracy: Tensor
    fooling: Tensor | None


def adversarial_losses(
    discriminator: Discriminator, pair: Pair, mode: Adversarial, beta: float
) -> AdversarialLosses:
    """The losses of a discriminator and of the student against it.

    Args:
        discriminator: the one of the pair's output.
        pair: the values that it tells apart.
        mode: what the student receives; not `off`.
        beta: the weight of what the student receives, multiplied by the output's `eta`.
    """
    weight, fooling = beta * pair.output.eta, None
    student, teacher = (pair.output.discriminated(side) for side in (pair.student, pair.teacher))
    if mode == "non_saturating":
        fooling = weight * fool(discriminator, student)
        student = student.detach()
    else:
        student = scale_gradient(student, -weight if mode == "minimax" else weight)
    loss, accuracy = discriminate(discriminator, student, teacher)
    return AdversarialLosses(loss, accuracy, fooling)


def _similarity_loss(method: Method, is_block: bool) -> Callable[[Tensor, Tensor], Tensor]:
    if is_block:
        return LOSSES[method.similarity.blocks]
    loss = partial(LOSSES[method.similarity.logits], temperature=method.temperature)
    if not method.standardise_logits:
        return loss
    return lambda student, teacher: loss(standardise_logits(student), standardise_logits(teacher))
