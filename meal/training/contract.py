"""What the training loop is given, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from meal.core import ranks
from meal.core.collectives import barrier
from meal.core.files import write_csv
from meal.core.runtime import Logger
from meal.models.checkpoint import save
from meal.models.spec import NetworkSpec
from meal.training.checkpoints import Checkpoints
from meal.training.optimizer import ParameterGroup
from meal.training.settings import Training

History = list[dict[str, float]]  # a row of metrics per epoch


@dataclass(frozen=True)
class Trained:
    """The result of a training run, or of loading weights.

    Attributes:
        spec: the network's specification.
        state: its state after the epoch that `keep` names.
        history: the metrics of each epoch.
        steps: of the whole run, and of the training behind the weights that it started from; None
            if those are not known.
    """

    spec: NetworkSpec
    state: dict[str, Tensor]
    history: History
    steps: int | None = None

    def save(self, folder: Path, curve: Path) -> None:
        """Write specification and state to `folder`, and the history to `curve` (CSV).

        The first rank writes, and the others wait for it: they may read what it has written.
        """
        if ranks.is_first():
            save(folder, self.spec, self.state, self.steps)
            write_csv(curve, self.history)
        barrier()


class Objective(nn.Module, ABC):
    """What training minimises. A new method needs a new objective and nothing else.

    Attributes:
        network: the network that is trained, validated and saved.
        skips_parameters: whether a step may leave parameters without a gradient.
    """

    network: nn.Module
    skips_parameters: bool = False

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """All trained parameters; the first group is the network's."""

    @abstractmethod
    def forward(self, *inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """From the inputs of one step to the total loss and its named parts, all scalars."""


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        title: shown beside the progress bar.
        spec: the specification of the network.
        objective: what is minimised, on its device.
        settings: epochs, batch size, learning rate, precision.
        seed: for the random draws of layers.
        steps_per_epoch: the number of batches in an epoch.
        batches: from an epoch and a step in it, both counted from 0, to the inputs of that step
            and all later ones.
        validate: from the network in eval mode to its metrics; with `keep: best`, `top1_error` and
            then `nll` choose the epoch.
        checkpoints: of this run.
        curve: the CSV file of the history, rewritten after each epoch; None for no file.
        logger: the tracker that receives the history, too.
        start_steps: those behind the weights that it starts from; None if they are not known.
        held: frozen modules, which stay in eval mode.
    """

    title: str
    spec: NetworkSpec
    objective: Objective
    settings: Training
    seed: int
    steps_per_epoch: int
    batches: Callable[[int, int], Iterator[tuple[Any, ...]]]
    validate: Callable[[nn.Module], dict[str, float]]
    checkpoints: Checkpoints
    curve: Path | None = None
    logger: Logger = "none"
    start_steps: int | None = 0
    held: Sequence[nn.Module] = ()
