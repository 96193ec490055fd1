"""The learning rate as a function of the step, with no state to save."""

from __future__ import annotations

import math

from meal.training.settings import Schedule


def factor(schedule: Schedule, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The factor on the full learning rate at `step`, counted from 0 over the whole run."""
    warmup = schedule.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule.schedule == "constant":
        return 1.0
    if schedule.schedule == "step":
        epoch = step // steps_per_epoch
        return schedule.lr_gamma ** sum(epoch >= milestone for milestone in schedule.milestones)
    total = epochs * steps_per_epoch
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))
