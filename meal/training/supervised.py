"""The supervised objective: cross-entropy on labels, for teachers and the baseline."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn

from meal.config.schema import Training
from meal.config.slices import SupervisedSlice
from meal.data.batches import Purpose, derive_seed, epoch_batches, steps_per_epoch
from meal.data.pipelines import PlainPipeline, ViewPipeline
from meal.data.prepared import Prepared
from meal.data.views import view_family
from meal.nets.origins import specify
from meal.nets.spec import NetworkSpec
from meal.nets.weights import build, with_blocks
from meal.training.checkpoint import Checkpoints
from meal.training.engine import History, Objective, ParameterGroup, Run, train
from meal.training.validation import validator


class SupervisedObjective(Objective):
    """Mean cross-entropy of the network's logits against labels."""

    def __init__(self, network: nn.Module, settings: Training) -> None:
        super().__init__()
        self.network = network
        self._settings = settings

    def parameter_groups(self) -> list[ParameterGroup]:
        """The network's parameters, with the run's own optimisation."""
        return [ParameterGroup(list(self.network.parameters()), self._settings)]

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Images `(N, C, H, W)` and labels `(N,)` to the loss, which has no parts."""
        return nn.functional.cross_entropy(self.network(images), labels), {}


def train_supervised(
    title: str,
    purpose: Purpose,
    config: SupervisedSlice,
    data: Prepared,
    device: torch.device,
    checkpoints: Checkpoints,
) -> tuple[NetworkSpec, dict[str, Tensor], History]:
    """Train a network on labels; epoch `e` sees view `e` of every image.

    Args:
        title: shown beside the progress bar.
        purpose: teacher or baseline; equal seeds do not make them equal networks.
        config: network, views and training.
        data: the prepared data.
        device: where to train.
        checkpoints: of this run.

    Returns:
        The network's specification, its best state on validation, and the measures by epoch.
    """
    settings, seed = config.training, derive_seed(config.network.seed, purpose)
    assert settings is not None
    spec = specify(config.network, data)
    network = build(spec, seed)
    if spec.blocks:  # names that are not there are said before the work, not after
        with_blocks(build(spec), spec, 1)  # another one: its hooks would hold every step's maps
    family = view_family(config.views)
    pipeline = ViewPipeline(PlainPipeline.of(data, "train", device), family)
    labels = data.labels("train").to(device)
    shuffle = derive_seed(seed, Purpose.SHUFFLE)

    def batches(epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = epoch_batches(len(pipeline), settings.batch_size, shuffle, epoch)
        for rows, pixels in pipeline.batches(islice(order, first, None), epoch):
            yield pixels, labels[rows.to(device, non_blocking=True)]

    state, history = train(
        Run(
            title=title,
            objective=SupervisedObjective(network.to(device), settings),
            settings=settings,
            seed=seed,
            steps_per_epoch=steps_per_epoch(len(pipeline), settings.batch_size),
            batches=batches,
            validate=validator(data, device),
            checkpoints=checkpoints,
        )
    )
    return spec, state, history
