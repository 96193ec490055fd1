"""The MEAL objective: `L = alpha * L_sim + L_adv + label_weight * CE(student, labels)`.

Outputs are the logits and the aligned blocks. `L_sim` sums their similarity losses, weighted by
`gamma` (MEAL, section 3.3). `L_adv` sums the discriminators' binary cross-entropies (section 3.4);
what the student receives from it depends on `adversarial`:

- `minimax`: `-beta * eta` times the gradient of the same loss (gradient reversal, as in the paper);
- `cooperative`: `+beta * eta` times that gradient (the official code's, for comparison only);
- `non_saturating`: the gradient of `beta * eta * BCE(D(student), 1)` through frozen discriminators;
- `off`: nothing; there are no discriminators.

The discriminators minimise the unweighted sum in every mode, in the same backward pass.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from meal.core.collectives import gather
from meal.distill.discriminator import Discriminator, discriminate
from meal.distill.outputs import ComparedOutput, Pair, adversarial_losses
from meal.distill.settings import Distill
from meal.distill.teachers import Targets
from meal.models.blocks import ALIGNED, BlockNetwork
from meal.targets.ensemble import MEAN
from meal.training.contract import Objective
from meal.training.execution import of_whole_batch
from meal.training.optimizer import ParameterGroup

LOGITS = "logits"
_HELD_OUT = 4096  # images judged at once, to bound memory


class DistillationObjective(Objective):
    """The student, its compared outputs with their discriminators, and the loss over all of them.

    Attributes:
        compared: the outputs by name: `logits`, and `blockK` or, if projected, `TEACHER_blockK`.
    """

    def __init__(
        self,
        student: BlockNetwork,
        method: Distill,
        classes: int,
        top_k: bool = False,
        projected: Mapping[str, Mapping[int, int]] | None = None,
    ) -> None:
        """Set up the outputs.

        Args:
            student: returns logits and blocks.
            method: losses, weights, teacher selection, and the optimisation of both sides.
            classes: the number of logits.
            top_k: whether only the k largest probabilities of the targets were stored.
            projected: the size of each teacher's blocks, to which the student's are mapped; None if
                every block is aligned to the same 16 values.
        """
        super().__init__()
        self.student = student
        self.network = student.network
        self.method = method
        # If the targets are log-probabilities, the student's values must be, too.
        self._log_probabilities = top_k or method.selection == MEAN
        self.compared = _compared_outputs(student, method, classes, projected)
        self.outputs = nn.ModuleDict(self.compared)  # registers them as sub-modules
        # Not every step has targets for every block, and a head may be compared with nothing.
        self.skips_parameters = list(self.compared) != [LOGITS] or not method.gamma.logits

    @property
    def discriminators(self) -> dict[str, Discriminator]:
        """The discriminators, by output."""
        return {
            name: output.discriminator
            for name, output in self.compared.items()
            if output.discriminator is not None
        }

    def parameter_groups(self) -> list[ParameterGroup]:
        """The student's parameters, and the discriminators' with their own settings."""
        groups = [ParameterGroup(self.network, self.method, self.method.layer_decay)]
        projections = nn.ModuleList(output.projection for output in self.compared.values())
        if any(True for _ in projections.parameters()):
            groups.append(ParameterGroup(projections, self.method))
        if self.discriminators:
            discriminators = nn.ModuleList(self.discriminators.values())
            groups.append(ParameterGroup(discriminators, self.method.discriminator))
        return groups

    def forward(
        self, images: Tensor, labels: Tensor, targets: Targets
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """From views `(N, C, H, W)`, their labels and their targets to the loss.

        Views and labels are this rank's; targets and loss are those of the whole batch.
        Labels are `(N,)`, or probabilities `(N, classes)` for mixed images; see `label_loss`.

        Returns:
            The total loss, and its parts: `similarity`; `discriminator`, the mean of the
            discriminators' losses, with their `discriminator_accuracy` in percent; `label`.
        """
        logits, blocks = of_whole_batch(self.student, images)
        labels = gather(labels)
        pairs = self._pairs(logits, blocks, targets)
        parts = {"similarity": _similarity(pairs, self.method.blocks)}
        total = self.method.alpha * parts["similarity"]
        if self.discriminators:
            adversarial, measured = self._adversarial(pairs)
            total = total + adversarial
            parts |= measured
        if self.method.label_weight:
            smoothing = self.method.label_smoothing
            parts["label"] = label_loss(logits.float(), labels, smoothing)
            total = total + self.method.label_weight * parts["label"]
        if not total.requires_grad:  # no output is compared with this step's teacher
            total = total + 0 * logits.sum()
        return total, parts

    @torch.no_grad()
    def held_out_accuracy(self, student: Tensor, teacher: Tensor) -> float:
        """How often the logits' discriminator is right about images it was not trained on.

        Args:
            student: the student's logits for them, `(N, C)`, on the CPU.
            teacher: the targets for them, likewise.

        Returns:
            The mean over both sides, in percent.
        """
        output = self.compared[LOGITS]
        assert output.discriminator is not None
        if self._log_probabilities:
            student = F.log_softmax(student, dim=1)
        device = next(output.discriminator.parameters()).device
        right = torch.zeros((), device=device)
        for sides in zip(student.split(_HELD_OUT), teacher.split(_HELD_OUT), strict=True):
            own, theirs = (output.discriminated(side.to(device)) for side in sides)
            right += discriminate(output.discriminator, own, theirs)[1] * len(own)
        return 100 * float(right) / len(student)

    def _pairs(self, logits: Tensor, blocks: dict[int, Tensor], targets: Targets) -> list[Pair]:
        """The outputs for which this step has targets, in float32."""
        logits = logits.float()
        if self._log_probabilities:
            logits = F.log_softmax(logits, dim=1)
        pairs = []
        for output in self.compared.values():
            if output.block is None:
                pairs.append(Pair(output, output(logits, None), targets.logits))
            elif output.block in targets.blocks and output.teacher in (None, targets.teacher):
                values, rows = targets.blocks[output.block]
                pairs.append(Pair(output, output(blocks[output.block], rows), values))
        return pairs

    def _adversarial(self, pairs: list[Pair]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of both sides, and what is reported about it."""
        found = [
            adversarial_losses(
                pair.output.discriminator, pair, self.method.adversarial, self.method.beta
            )
            for pair in pairs
            if pair.output.discriminator is not None
        ]
        if not found:  # this step's teacher has no output with a discriminator
            zero = pairs[0].student.new_zeros(())
            return zero, {"discriminator": zero, "discriminator_accuracy": zero}
        losses = torch.stack([each.discriminator for each in found])
        measured = {
            "discriminator": losses.detach().mean(),
            "discriminator_accuracy": 100 * torch.stack([each.accuracy for each in found]).mean(),
        }
        fooling = [each.fooling for each in found if each.fooling is not None]
        return losses.sum() + sum(fooling), measured


def label_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean cross-entropy over the images that have a label; 0 if none has.

    Args:
        logits: `(N, classes)`.
        labels: `(N,)`, -1 for images without a label; or probabilities `(N, classes)`, zeros for
            them.
        smoothing: the share of a label that goes to all classes.
    """
    known = labels >= 0 if labels.ndim == 1 else labels.sum(dim=1) > 0
    losses = F.cross_entropy(
        logits, labels, ignore_index=-1, reduction="none", label_smoothing=smoothing
    )
    return torch.where(known, losses, 0).sum() / known.sum().clamp(min=1)


def _compared_outputs(
    student: BlockNetwork,
    method: Distill,
    classes: int,
    projected: Mapping[str, Mapping[int, int]] | None,
) -> dict[str, ComparedOutput]:
    """The outputs of the student that are compared, by name."""
    gamma, eta = (weights.of_blocks(method.blocks) for weights in (method.gamma, method.eta))
    blocks = [block for block in method.blocks if block in student.block_levels]
    compared: dict[str, tuple[int, int, str | None]]  # block, size and teacher by name
    if projected is None:
        compared = {f"block{k}": (k, ALIGNED, None) for k in blocks}
    else:
        compared = {
            f"{teacher}_block{k}": (k, size, teacher)
            for teacher, sizes in projected.items()
            for k, size in sizes.items()
            if k in blocks
        }
    projections = {  # before the discriminators: fixes the order in which weights are drawn
        name: nn.Linear(student.block_sizes[k], size, bias=False)
        for name, (k, size, teacher) in compared.items()
        if teacher is not None
    }
    outputs = {LOGITS: ComparedOutput(method, classes, method.gamma.logits, method.eta.logits)}
    for name, (k, size, teacher) in compared.items():
        outputs[name] = ComparedOutput(
            method, size, gamma[k], eta[k], k, teacher, projections.get(name)
        )
    return outputs


def _similarity(pairs: list[Pair], blocks: list[int]) -> Tensor:
    """The weighted sum of the similarity losses: the logits', then those of `blocks` in order."""
    order = [None, *blocks]
    total = pairs[0].student.new_zeros(())
    for output, student, teacher in sorted(pairs, key=lambda pair: order.index(pair.output.block)):
        if output.gamma:
            total = total + output.gamma * output.similarity(student, teacher)
    return total
