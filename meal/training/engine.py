"""The one training loop: teachers, baseline and student differ in their objective alone."""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from meal.config.schema import Optimisation, Training
from meal.data.batches import Purpose, derive_seed
from meal.progress import Progress
from meal.training.checkpoint import Checkpoints
from meal.training.schedule import factor

History = list[dict[str, float]]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with a learning rate, a decay and a schedule of their own."""

    parameters: list[nn.Parameter]
    optimisation: Optimisation


class Objective(nn.Module, ABC):
    """What is minimised. A new method is a new objective, and nothing else.

    Attributes:
        network: the network that is trained, validated and saved.
    """

    network: nn.Module

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """All trained parameters; the first group is the network's."""

    @abstractmethod
    def forward(self, *inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Inputs of one step to the total loss and its named parts, all scalars."""


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        title: shown beside the progress bar.
        objective: what is minimised, on its device.
        settings: epochs, batch size, learning rate, precision.
        seed: decides what layers draw at random.
        steps_per_epoch: how many steps `batches` yields.
        batches: from an epoch, counted from 0, to the inputs of its steps.
        validate: from the network in eval mode to its measures; `top1_error` and `nll` choose the
            best epoch.
        checkpoints: where the run's state is kept.
        ema: decay of a running average of the weights, which is then what is validated and kept.
    """

    title: str
    objective: Objective
    settings: Training
    seed: int
    steps_per_epoch: int
    batches: Callable[[int], Iterator[tuple[Any, ...]]]
    validate: Callable[[nn.Module], dict[str, float]]
    checkpoints: Checkpoints
    ema: float = 0.0


def train(run: Run) -> tuple[dict[str, Tensor], History]:
    """Train to the end, resuming from the newest checkpoint of the same run.

    Returns:
        The network's state after the epoch that was best on validation (lowest error, then lowest
        likelihood loss), and a row of measures for each epoch.

    Raises:
        ValueError: if the loss is not finite; the last checkpoint is kept.
    """
    objective, settings = run.objective, run.settings
    optimizer = make_optimizer(objective)
    average: AveragedModel | None = None
    if run.ema:
        average = AveragedModel(
            objective.network, multi_avg_fn=get_ema_multi_avg_fn(run.ema), use_buffers=True
        )
    network = objective.network if average is None else average.module
    state = run.checkpoints.load() or {"epoch": 0, "history": [], "best": None}
    if state["epoch"]:
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
        print(f"{run.title}: resumed after epoch {state['epoch']} of {settings.epochs}", flush=True)
    history: History = state["history"]
    best: dict[str, Tensor] | None = state["best"]
    total = settings.epochs * run.steps_per_epoch
    done = state["epoch"] * run.steps_per_epoch
    with Progress(run.title, total, "steps", done) as progress:
        for epoch in range(state["epoch"], settings.epochs):
            losses = _train_epoch(run, optimizer, average, epoch, progress)
            network.eval()
            row = {"epoch": epoch + 1, **losses}
            row |= {f"validation_{k}": v for k, v in run.validate(network).items()}
            if best is None or _rank(row) < min(_rank(earlier) for earlier in history):
                best = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}
            history.append(row)
            progress.show({k: v for k, v in row.items() if k != "epoch"})
            run.checkpoints.save(
                epoch + 1,
                {
                    "epoch": epoch + 1,
                    "history": history,
                    "best": best,
                    "objective": objective.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "average": average.state_dict() if average is not None else None,
                },
            )
    assert best is not None
    return best, history


def make_optimizer(objective: Objective) -> torch.optim.Optimizer:
    """SGD over the objective's groups, each with its own rate, momentum and decay."""
    groups = [
        {
            "params": group.parameters,
            "lr": group.optimisation.lr,
            "momentum": group.optimisation.momentum,
            "nesterov": group.optimisation.nesterov,
            "weight_decay": group.optimisation.weight_decay,
        }
        for group in objective.parameter_groups()
    ]
    optimizer = torch.optim.SGD(groups, fused=True)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            # The fused step wants a buffer for all or for none, and a parameter that belongs to
            # one teacher has no gradient until that teacher speaks. Zeros change no step.
            if group["momentum"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _train_epoch(
    run: Run,
    optimizer: torch.optim.Optimizer,
    average: AveragedModel | None,
    epoch: int,
    progress: Progress,
) -> dict[str, float]:
    """One epoch; returns the mean of the loss and of each of its parts."""
    objective, settings = run.objective, run.settings
    schedules = [group.optimisation for group in objective.parameter_groups()]
    device = next(objective.parameters()).device
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    if settings.precision == "bfloat16":
        autocast = lambda: torch.autocast(device.type, torch.bfloat16)  # noqa: E731
    sums: dict[str, Tensor] = {}
    objective.train()
    for index, inputs in enumerate(run.batches(epoch)):
        step = epoch * run.steps_per_epoch + index
        for group, schedule in zip(optimizer.param_groups, schedules, strict=True):
            group["lr"] = schedule.lr * factor(schedule, step, run.steps_per_epoch, settings.epochs)
        # What layers draw depends on the step alone: nothing to save, nothing to resume.
        torch.manual_seed(derive_seed(run.seed, Purpose.LAYERS, step))
        with autocast():
            loss, parts = objective(*inputs)
        if device.type == "cpu":  # elsewhere reading the loss would make every step wait
            _check_finite(run, loss, parts, step, optimizer)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if average is not None:
            average.update_parameters(objective.network)
        for name, value in {"loss": loss, **parts}.items():
            sums[name] = sums[name] + value.detach() if index else value.detach()
        progress.advance(1)
        if progress.due():
            _check_finite(run, loss, parts, step, optimizer)
            progress.show({name: float(value) / (index + 1) for name, value in sums.items()})
    means = {name: float(value) / run.steps_per_epoch for name, value in sums.items()}
    if not math.isfinite(means["loss"]):
        _check_finite(run, sums["loss"], sums, step, optimizer)
    return {name: round(value, 6) for name, value in means.items()}


def _check_finite(
    run: Run, loss: Tensor, parts: dict[str, Tensor], step: int, optimizer: torch.optim.Optimizer
) -> None:
    if not bool(torch.isfinite(loss)):
        shown = ", ".join(f"{name}={float(value.detach()):.4g}" for name, value in parts.items())
        rate = optimizer.param_groups[0]["lr"]
        raise ValueError(
            f"{run.title}: the loss is {float(loss.detach())} at step {step} (lr={rate:.3g}"
            f"{', ' + shown if shown else ''}); lower the learning rate or raise warmup_epochs"
        )


def _rank(row: dict[str, float]) -> tuple[float, float]:
    return row["validation_top1_error"], row["validation_nll"]
