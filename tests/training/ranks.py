"""Train in each of several ways, in one rank or in many, and save the states to a file.

python -m tests.training.ranks FILE, alone or started by torchrun.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from meal.core import ranks
from meal.core.collectives import join, leave
from meal.core.work import WorkFolder
from meal.distill.objective import DistillationObjective
from meal.distill.teachers import BlockTargets, Targets
from meal.models.factory import build, with_blocks
from meal.models.spec import NetworkSpec
from meal.models.zoo import registry as zoo
from meal.models.zoo.registry import Architecture
from meal.supervised.objective import SupervisedObjective
from meal.training.checkpoints import Checkpoints
from meal.training.contract import Objective, Run
from meal.training.engine import train
from meal.training.settings import Training
from tests.conftest import distill_settings, tiny_network

SPEC = NetworkSpec("tiny", 1.0, 1, 16, 3)
STEPS, BATCH = 6, 24
BLOCKS = {"blocks": [1, 2, 3], "norm": "standardise"}
CASES: dict[str, dict[str, Any]] = {
    "supervised": {},
    "adamw": {"optimizer": "adamw", "lr": 0.003, "clip_norm": 0.5, "ema": 0.5},
    "logits": {"blocks": [], "adversarial": "minimax"},
    "minimax": {**BLOCKS, "adversarial": "minimax"},
    "non_saturating": {**BLOCKS, "adversarial": "non_saturating"},
    "cooperative": {**BLOCKS, "adversarial": "cooperative"},
    "labels": {"blocks": [], "adversarial": "off", "label_weight": 1.0},
    "relations": {
        **BLOCKS, "adversarial": "off", "similarity": {"logits": "kl", "blocks": "relations"},
    },
    "projected": {**BLOCKS, "adversarial": "minimax"},
    "per_image": {**BLOCKS, "adversarial": "minimax"},
    "bfloat16": {**BLOCKS, "adversarial": "minimax", "precision": "bfloat16"},
}  # fmt: skip


def inputs(step: int, name: str) -> tuple[Tensor, Tensor, Targets]:
    """The inputs of a step for the whole batch."""
    draw = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, 1, 16, 16, generator=draw)
    labels = torch.arange(BATCH) % 3
    if name == "labels":
        labels[5:] = -1  # all labelled images are the first rank's
    size = 24 if name == "projected" else 16
    blocks: BlockTargets = {k: (torch.randn(BATCH, size, generator=draw), None) for k in (1, 2, 3)}
    if name == "per_image":  # the first block of most images is lacking
        blocks[1] = (blocks[1][0][:3], torch.tensor([1, 2, 20]))
    targets = Targets(2 * torch.randn(BATCH, 3, generator=draw), blocks)
    if name == "projected":  # each step leaves one teacher's projections without a gradient
        targets = replace(targets, teacher=("one", "two")[step % 2])
    return images, labels, targets


def objective(name: str, settings: Training) -> Objective:
    """The objective of a case."""
    torch.manual_seed(0)
    if name in ("supervised", "adamw"):
        return SupervisedObjective(build(SPEC, 1), settings)
    student = with_blocks(
        build(SPEC, 1), SPEC, 3, "projected" if name == "projected" else "spatial"
    )
    sizes = {1: 24, 2: 24, 3: 24}
    projected = {"one": sizes, "two": sizes} if name == "projected" else None
    return DistillationObjective(student, settings, SPEC.classes, projected=projected)  # type: ignore[arg-type]


def result(name: str, folder: Path) -> dict[str, Any]:
    """The state after a few steps, and the losses."""
    common = {"epochs": 1, "batch_size": BATCH, "lr": 0.05, **CASES[name]}
    supervised = name in ("supervised", "adamw")
    settings = Training.model_validate(common) if supervised else distill_settings(**common)
    made = objective(name, settings)

    def batches(epoch: int, first: int) -> Iterator[tuple[Any, ...]]:
        for step in range(first, STEPS):
            images, labels, targets = inputs(step, name)
            mine = ranks.own(BATCH)
            yield (images[mine], labels[mine], targets)[: 2 if supervised else 3]

    def validate(network: torch.nn.Module) -> dict[str, float]:
        return {"top1_error": 0.0, "nll": 0.0}

    work = WorkFolder(folder, name, {})
    trained = train(Run("t", SPEC, made, settings, 0, STEPS, batches, validate, Checkpoints(work)))
    return {"state": trained.state, "objective": made.state_dict(), "history": trained.history}


def main() -> None:
    """Run every case."""
    torch.set_num_threads(1)
    zoo.ZOO["tiny"] = Architecture(tiny_network, scales=True)
    join(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        found = {name: result(name, Path(folder)) for name in CASES}
    if ranks.is_first():
        torch.save(found, sys.argv[1])
    leave()


if __name__ == "__main__":
    main()
