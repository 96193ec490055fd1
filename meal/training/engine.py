"""The training loop: teachers, baseline and student differ only in their objective."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from meal.core import ranks
from meal.core.errors import UserError
from meal.core.files import write_csv
from meal.core.progress import Progress
from meal.core.seeds import Purpose, derive_seed
from meal.core.signals import Interrupted, Interruption, recorded_signals
from meal.training.contract import History, Run, Trained
from meal.training.execution import compile_objective, parallel
from meal.training.loggers import open_log
from meal.training.optimizer import GroupOptimizer


def train(run: Run) -> Trained:
    """Train to the end, resuming from the newest checkpoint of the same run.

    Raises:
        UserError: if the loss is not finite; the last checkpoint is kept.
        Interrupted: if the process was asked to stop; the last step is saved.
    """
    return _Trainer(run).train()


class _Trainer:
    """The state of a run, all of which is in its checkpoints, and the loop over its steps."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._objective = run.objective
        if run.settings.compile != "none":
            compile_objective(run.objective, run.settings.compile)
        self._parallel = parallel(run.objective, run.objective.skips_parameters)
        self._device = next(run.objective.parameters()).device
        self._optimizers = [GroupOptimizer(each) for each in run.objective.parameter_groups()]
        self._average: AveragedModel | None = None
        if run.settings.ema:
            average = get_ema_multi_avg_fn(run.settings.ema)
            self._average = AveragedModel(
                run.objective.network, multi_avg_fn=average, use_buffers=True
            )
        # The network that is validated and returned.
        self._kept = run.objective.network if self._average is None else self._average.module
        self._step = 0  # steps done, over the whole run
        self._sums: dict[str, Tensor] = {}  # of the loss and its parts, in this epoch so far
        self._history: History = []
        self._best: dict[str, Tensor] | None = None
        self._resume()

    def train(self) -> Trained:
        """Run the remaining epochs."""
        run, epochs = self._run, self._run.settings.epochs
        total = epochs * run.steps_per_epoch
        log_name = f"{run.title} {run.checkpoints.name}"
        with (
            recorded_signals() as interruption,
            open_log(run.logger, log_name, self._history) as log,
            Progress(run.title, total, "steps", self._step, epochs) as bar,
        ):
            while len(self._history) < epochs and not self._is_enough():
                self._train_epoch(bar, interruption)
                log.write(self._end_epoch(bar))
                self._leave_if_asked(interruption)
        state = self._state() if self._best is None else self._best
        steps = None if run.start_steps is None else run.start_steps + self._step
        return Trained(run.spec, state, self._history, steps)

    def _train_epoch(self, bar: Progress, interruption: Interruption) -> None:
        """Run the remaining steps of the epoch."""
        run, epoch = self._run, len(self._history)
        first = self._step - epoch * run.steps_per_epoch
        if first == run.steps_per_epoch:  # resumed after the last step, before validation
            return
        self._objective.train()
        for module in run.held:
            module.eval()
        for inputs in run.batches(epoch, first):
            loss, parts = self._optimise(inputs)
            for name, value in {"loss": loss, **parts}.items():
                summed = self._sums.get(name)
                self._sums[name] = value.detach() if summed is None else summed + value.detach()
            bar.advance(1)
            saves = interruption.requested is not None or run.checkpoints.due()  # the first rank
            if saves or bar.due():
                self._check_finite(loss, parts)
                done = self._step + 1 - epoch * run.steps_per_epoch
                bar.show({name: float(value) / done for name, value in self._sums.items()})
            self._step += 1
            if saves:
                self._save()
                self._leave_if_asked(interruption)

    def _optimise(self, inputs: tuple[Any, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """One step of the optimizer; returns the loss and its parts."""
        run, settings = self._run, self._run.settings
        # The draws of layers depend only on the step, so there is no generator to save.
        layers = derive_seed(run.seed, Purpose.LAYERS, self._step)
        torch.manual_seed(layers if ranks.is_first() else derive_seed(layers, ranks.rank()))
        with self._autocast():
            loss, parts = self._parallel(*inputs)
        if self._device.type == "cpu":  # on other devices, reading the loss synchronises
            self._check_finite(loss, parts)
        self._objective.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step(self._step, run.steps_per_epoch, settings.epochs)
        if self._average is not None:
            self._average.update_parameters(self._objective.network)
        return loss, parts

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._run.settings.precision == "bfloat16":
            return torch.autocast(self._device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def _end_epoch(self, bar: Progress) -> dict[str, float]:
        """Validate, record the row and return it, keep the best state, save a checkpoint."""
        steps = self._run.steps_per_epoch
        means = {name: float(value) / steps for name, value in self._sums.items()}
        if not math.isfinite(means["loss"]):
            self._check_finite(self._sums["loss"], self._sums)
        row: dict[str, float] = {"epoch": len(self._history) + 1}
        row |= {name: round(value, 6) for name, value in means.items()}
        self._kept.eval()
        metrics = self._run.validate(self._kept)
        row |= {f"validation_{name}": value for name, value in metrics.items()}
        self._history.append(row)
        if self._run.settings.keep == "best" and best_epoch(self._history) is row:
            self._best = self._state()
        self._sums = {}
        self._save()
        self._write_curve()
        bar.end_epoch({name: value for name, value in row.items() if name != "epoch"})
        return row

    def _is_enough(self) -> bool:
        """Whether `early_stopping` ends the run: it has not improved for so many epochs."""
        patience = self._run.settings.early_stopping
        if patience is None or not self._history:
            return False
        return len(self._history) - best_epoch(self._history)["epoch"] >= patience

    def _write_curve(self) -> None:
        """Write the epochs so far, for plots that move while training goes on."""
        if self._run.curve is not None and ranks.is_first():
            write_csv(self._run.curve, self._history)

    def _state(self) -> dict[str, Tensor]:
        return {k: v.detach().cpu().clone() for k, v in self._kept.state_dict().items()}

    def _save(self) -> None:
        average = self._average.state_dict() if self._average is not None else None
        self._run.checkpoints.save(
            self._step,
            {
                "step": self._step,
                "sums": self._sums,
                "history": self._history,
                "best": self._best,
                "objective": self._objective.state_dict(),
                "optimizers": [each.state_dict() for each in self._optimizers],
                "average": average,
            },
        )

    def _resume(self) -> None:
        state = self._run.checkpoints.load()
        if state is None:
            return
        self._step, self._history, self._best = state["step"], state["history"], state["best"]
        self._sums = {name: value.to(self._device) for name, value in state["sums"].items()}
        self._objective.load_state_dict(state["objective"])
        for each, saved in zip(self._optimizers, state["optimizers"], strict=True):
            each.load_state_dict(saved)
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        total = self._run.settings.epochs * self._run.steps_per_epoch
        print(f"{self._run.title}: resumed after step {self._step} of {total}", flush=True)
        if self._history:
            self._write_curve()  # DVC has removed it

    def _leave_if_asked(self, interruption: Interruption) -> None:
        if interruption.requested is not None:
            raise Interrupted(
                interruption.requested,
                f"{self._run.title} is saved at step {self._step}; resume with: dvc repro",
            )

    def _check_finite(self, loss: Tensor, parts: dict[str, Tensor]) -> None:
        if not bool(torch.isfinite(loss)):
            shown = ", ".join(
                f"{name}={float(value.detach()):.4g}" for name, value in parts.items()
            )
            rate = self._optimizers[0].rate
            raise UserError(
                f"{self._run.title}: the loss is {float(loss.detach())} at step {self._step} "
                f"(lr={rate:.3g}{', ' + shown if shown else ''}); lower the learning rate, raise "
                "warmup_epochs, or set clip_norm"
            )


def best_epoch(history: History) -> dict[str, float]:
    """The row of the first epoch with the lowest validation error, and then NLL."""
    return min(history, key=lambda row: (row["validation_top1_error"], row["validation_nll"]))
