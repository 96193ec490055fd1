"""The supervised objective: cross-entropy on labels."""

from __future__ import annotations

from torch import Tensor, nn

from meal.core.collectives import gather
from meal.training.contract import Objective
from meal.training.execution import of_whole_batch
from meal.training.optimizer import ParameterGroup
from meal.training.settings import Training


class SupervisedObjective(Objective):
    """Mean cross-entropy of the network's logits against labels."""

    def __init__(self, network: nn.Module, settings: Training) -> None:
        super().__init__()
        self.network = network
        self._settings = settings

    def parameter_groups(self) -> list[ParameterGroup]:
        """The network's parameters, optimised by the run's settings."""
        return [ParameterGroup(self.network, self._settings, self._settings.layer_decay)]

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """From this rank's images `(N, C, H, W)` and labels `(N,)` to the loss of the batch."""
        smoothing = self._settings.label_smoothing
        logits, labels = of_whole_batch(self.network, images), gather(labels)
        return nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing), {}
