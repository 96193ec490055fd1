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

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from meal.config.schema import Distill, Weights
from meal.distillation.discriminator import Discriminator, discriminate, fool, scale_gradient
from meal.distillation.similarity import LOSSES
from meal.nets.blocks import ALIGNED, BlockNetwork
from meal.teaching.ensemble import MEAN
from meal.teaching.targets import Targets
from meal.training.engine import Objective, ParameterGroup

LOGITS = "logits"


class DistillationObjective(Objective):
    """The student, its discriminators, and the loss that ties them to the teachers."""

    def __init__(
        self, student: BlockNetwork, method: Distill, classes: int, top_k: bool = False
    ) -> None:
        """Set up the outputs that are compared.

        Args:
            student: yields logits and blocks.
            method: the losses and their weights, who speaks, and the rates of both sides.
            classes: number of logits.
            top_k: whether teachers' answers are log-probabilities, the k largest of them kept.
        """
        super().__init__()
        self.student = student
        self.network = student.network
        self.method = method
        # Where teachers speak in log-probabilities, so does the student.
        self._log_probabilities = top_k or method.selection == MEAN
        blocks = [block for block in method.blocks if block in student.block_levels]
        self._gamma = _by_output(method.gamma, method.blocks)
        self._eta = _by_output(method.eta, method.blocks)
        self._blocks = blocks
        self.norms = nn.ModuleDict(
            {_name(k): nn.BatchNorm1d(ALIGNED, affine=False) for k in blocks}
            if method.norm == "standardise"
            else {}
        )
        sizes = {LOGITS: classes, **{_name(k): ALIGNED for k in blocks}}
        self.discriminators = nn.ModuleDict(
            {name: Discriminator(size) for name, size in sizes.items() if self._eta[name] > 0}
            if method.adversarial != "off"
            else {}
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """The student's parameters, and the discriminators' with a rate of their own."""
        groups = [ParameterGroup(list(self.network.parameters()), self.method)]
        if self.discriminators:
            own = ParameterGroup(list(self.discriminators.parameters()), self.method.discriminator)
            groups.append(own)
        return groups

    def forward(
        self, images: Tensor, labels: Tensor, targets: Targets
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Images `(N, C, H, W)`, labels `(N,)` and the teachers' answers to the same views.

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
            values = blocks[block]
            if self.norms:
                values = self.norms[_name(block)](values)
            if block in targets.blocks:
                theirs, rows = targets.blocks[block]
                pairs[_name(block)] = (values if rows is None else values[rows], theirs)
        return pairs

    def _similarity(self, pairs: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        choice = self.method.similarity
        total = pairs[LOGITS][0].new_zeros(())
        for name, (student, teacher) in pairs.items():
            if not self._gamma[name]:
                continue
            if name == LOGITS:
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


def _by_output(weights: Weights, blocks: list[int]) -> dict[str, float]:
    """A weight for each output in use."""
    own = weights.blocks if isinstance(weights.blocks, list) else [weights.blocks] * len(blocks)
    return {LOGITS: weights.logits, **{_name(k): w for k, w in zip(blocks, own, strict=True)}}


def _name(block: int) -> str:
    return f"block{block}"
