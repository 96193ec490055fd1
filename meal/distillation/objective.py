"""The MEAL objective: `L = alpha * L_sim + L_adv + label_weight * CE(student, labels)`.

Outputs are the logits and the aligned blocks. `L_sim` sums their similarity losses, weighted by
`gamma` (MEAL, section 3.3). `L_adv` sums the discriminators' binary cross-entropies (section 3.4);
what the student receives of it depends on `adversarial`:

- `minimax`: `-beta * eta` times the gradient of that same loss (gradient reversal; the paper's);
- `cooperative`: `+beta * eta` times it (the official code's, for comparison alone);
- `non_saturating`: the gradient of `beta * eta * BCE(D(student), 1)` through frozen discriminators;
- `off`: there are no discriminators.

The discriminators minimise the unweighted sum in every mode, and all happens in one backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from meal.config.schema import Distill, Weights
from meal.distillation.discriminator import Discriminator, discriminate, fool, scale_gradient
from meal.distillation.similarity import LOSSES, standardise_logits
from meal.nets.blocks import ALIGNED, BlockNetwork
from meal.teaching.ensemble import MEAN
from meal.teaching.targets import Targets
from meal.training.engine import Objective, ParameterGroup

LOGITS = "logits"


class DistillationObjective(Objective):
    """The student, its discriminators, and the loss that ties them to the teachers."""

    def __init__(
        self,
        student: BlockNetwork,
        method: Distill,
        classes: int,
        top_k: bool = False,
        projected: Mapping[str, Mapping[int, int]] | None = None,
    ) -> None:
        """Set up the outputs that are compared.

        Args:
            student: yields logits and blocks.
            method: the losses and their weights, who speaks, and the rates of both sides.
            classes: number of logits.
            top_k: whether teachers' answers are log-probabilities, the k largest of them kept.
            projected: the sizes of each teacher's blocks, to which the student's are mapped; None
                where all are aligned to the same 16 values.
        """
        super().__init__()
        self.student = student
        self.network = student.network
        self.method = method
        # Where teachers speak in log-probabilities, so does the student.
        self._log_probabilities = top_k or method.selection == MEAN
        self._blocks = [block for block in method.blocks if block in student.block_levels]
        self._projected = projected is not None
        if projected is None:
            compared = {_name(k, None): (k, ALIGNED) for k in self._blocks}
        else:
            compared = {
                _name(k, teacher): (k, size)
                for teacher, sizes in projected.items()
                for k, size in sizes.items()
                if k in self._blocks
            }
        self._gamma = _by_output(method.gamma, method.blocks, compared)
        self._eta = _by_output(method.eta, method.blocks, compared)
        self.projections = nn.ModuleDict(
            {
                name: nn.Linear(student.block_sizes[k], size, bias=False)
                for name, (k, size) in compared.items()
            }
            if self._projected
            else {}
        )
        self.norms = nn.ModuleDict(
            {name: nn.BatchNorm1d(size, affine=False) for name, (_, size) in compared.items()}
            if method.norm == "standardise"
            else {}
        )
        sizes = {LOGITS: classes, **{name: size for name, (_, size) in compared.items()}}
        self.discriminators = nn.ModuleDict(
            {name: Discriminator(size) for name, size in sizes.items() if self._eta[name] > 0}
            if method.adversarial != "off"
            else {}
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """The student's parameters, and the discriminators' with a rate of their own."""
        own = [*self.network.parameters(), *self.projections.parameters()]
        groups = [ParameterGroup(own, self.method)]
        if self.discriminators:
            theirs = list(self.discriminators.parameters())
            groups.append(ParameterGroup(theirs, self.method.discriminator))
        return groups

    def forward(
        self, images: Tensor, labels: Tensor, targets: Targets
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Images `(N, C, H, W)`, labels and the teachers' answers to the same views.

        Labels are `(N,)`, or shares `(N, classes)` of mixed images.

        Returns:
            The total loss, and its parts: `similarity`; `discriminator`, the mean of the
            discriminators' losses, with their `discriminator_accuracy` in percent; `label`.
        """
        logits, blocks = self.student(images)
        pairs = self._pairs(logits, blocks, targets)
        parts = {"similarity": self._similarity(pairs)}
        total = self.method.alpha * parts["similarity"]
        if self.discriminators:
            adversarial, measures = self._adversarial(pairs)
            total = total + adversarial
            parts |= measures
        if self.method.label_weight:
            parts["label"] = F.cross_entropy(logits.float(), labels)
            total = total + self.method.label_weight * parts["label"]
        if not total.requires_grad:  # this step's teacher has nothing that is compared
            total = total + 0 * logits.sum()
        return total, parts

    def _pairs(
        self, logits: Tensor, blocks: dict[int, Tensor], targets: Targets
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Student's and teacher's values by output, in float32."""
        logits = logits.float()
        if self._log_probabilities:
            logits = F.log_softmax(logits, dim=1)
        pairs = {LOGITS: (logits, targets.logits)}
        for block in self._blocks:
            if block not in targets.blocks:
                continue
            name = _name(block, targets.speaker if self._projected else None)
            values, (theirs, rows) = blocks[block], targets.blocks[block]
            if self._projected:
                values = self.projections[name](values)
            if self.norms:
                values = self.norms[name](values)
            pairs[name] = (values if rows is None else values[rows], theirs)
        return pairs

    def _similarity(self, pairs: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        choice = self.method.similarity
        total = pairs[LOGITS][0].new_zeros(())
        for name, (student, teacher) in pairs.items():
            if not self._gamma[name]:
                continue
            if name == LOGITS:
                if self.method.standardise_logits:
                    student, teacher = standardise_logits(student), standardise_logits(teacher)
                loss = LOSSES[choice.logits](student, teacher, self.method.temperature)
            else:
                loss = LOSSES[choice.blocks](student, teacher)
            total = total + self._gamma[name] * loss
        return total

    def _adversarial(
        self, pairs: dict[str, tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss that both sides see, and what is told of it."""
        mode, beta = self.method.adversarial, self.method.beta
        losses, accuracies, fooling = [], [], []
        for name, discriminator in self.discriminators.items():
            if name not in pairs:
                continue
            student, teacher = pairs[name]
            weight = beta * self._eta[name]
            if mode == "non_saturating":
                fooling.append(weight * fool(discriminator, student))
                student = student.detach()
            else:
                student = scale_gradient(student, -weight if mode == "minimax" else weight)
            loss, accuracy = discriminate(discriminator, student, teacher)
            losses.append(loss)
            accuracies.append(accuracy)
        if not losses:  # the teacher of this step has no output that is discriminated
            nothing = pairs[LOGITS][0].new_zeros(())
            return nothing, {"discriminator": nothing, "discriminator_accuracy": nothing}
        stacked = torch.stack(losses)
        measures = {
            "discriminator": stacked.detach().mean(),
            "discriminator_accuracy": 100 * torch.stack(accuracies).mean(),
        }
        return stacked.sum() + sum(fooling), measures


def _by_output(
    weights: Weights, blocks: list[int], compared: Mapping[str, tuple[int, int]]
) -> dict[str, float]:
    """A weight for each output in use."""
    own = weights.blocks if isinstance(weights.blocks, list) else [weights.blocks] * len(blocks)
    of_block = dict(zip(blocks, own, strict=True))
    return {LOGITS: weights.logits, **{name: of_block[k] for name, (k, _) in compared.items()}}


def _name(block: int, teacher: str | None) -> str:
    """The name of an output: a block, of one teacher where each has a size of its own."""
    return f"block{block}" if teacher is None else f"{teacher}_block{block}"
