"""A distillation step relative to a plain supervised step, with the same student, batch 128.

Teachers' outputs come from a cache, or from the five official teachers running online.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from meal.data.stores import ArrayStore
from meal.distill.objective import DistillationObjective
from meal.distill.settings import Distill
from meal.distill.teachers import TargetBatch, TargetReader
from meal.ensemble.build import build_ensemble
from meal.ensemble.settings import EnsembleSlice
from meal.evaluation.costs import count
from meal.models.checkpoint import save
from meal.models.factory import build, with_blocks
from meal.models.spec import NetworkSpec
from meal.supervised.objective import SupervisedObjective
from meal.targets.cache import NETWORK, create, record, seal, view_file
from meal.targets.ensemble import Ensemble
from meal.training.contract import Objective
from meal.training.optimizer import GroupOptimizer
from meal.training.settings import Training
from meal.views.crops import PaddedCrops
from meal.views.families import ViewFamily
from meal.views.pipelines import PlainPipeline, ViewPipeline
from tests.benchmarks.common import medians, report

CPU = torch.device("cpu")
BATCH, IMAGES, VIEWS, CLASSES = 128, 4096, 2, 10
# Architecture, width and repeats; a step of ResNet-18 takes seconds on two cores.
STUDENTS = {
    "mobilenet, half width": ("mobilenet", 0.5, 15),
    "resnet18": ("resnet18", 1.0, 4),
}
OFFICIAL = ("vgg19", "dpn92", "resnet18", "preact_resnet18", "densenet")


def spec(arch: str, width: float = 1.0) -> NetworkSpec:
    """A network for CIFAR-10."""
    return NetworkSpec(arch, width, 3, 32, CLASSES)


def make_teachers(
    folder: Path, archs: Sequence[str], number: int, online: bool, images: int = IMAGES
) -> Ensemble:
    """An ensemble of `number` teachers with random cached outputs, or with networks to run."""
    generator = np.random.default_rng(0)
    names = [f"teacher{index}" for index in range(number)]
    for index, name in enumerate(names):
        path = folder / "caches" / name
        path.mkdir(parents=True)
        arrays: dict[str, Any] = {
            f"{split}_logits": np.zeros((10, CLASSES), np.float32)
            for split in ("validation", "test")
        }
        if online:
            network_spec = spec(archs[index % len(archs)])
            save(path / NETWORK, network_spec, build(network_spec, index).state_dict())
        else:
            kind = record(CLASSES, "float16", None, dict.fromkeys((1, 2, 3), 16))
            for view in range(VIEWS):
                records = create(path / view_file(view), kind, (images,))
                for field in kind.names or ():
                    records[field] = generator.standard_normal(records[field].shape)
        for array, values in arrays.items():
            np.save(path / f"{array}.npy", values)
        unit = {"mean": [0.0] * 16, "std": [1.0] * 16}
        common = {"data": "", "views": {}, "view_count": VIEWS, "alignment": 1, "align": "spatial"}
        seal(
            path,
            {
                "name": name, **common, "dtype": "float16", "enabled": not online,
                "top_k": None, "block_count": 3, "mean_of": None, "code": "", "image_size": 32,
                "network": asdict(spec(archs[index % len(archs)])),
                "blocks": {str(block): unit for block in (1, 2, 3)},
            },
        )  # fmt: skip
    config = EnsembleSlice(teachers=names)
    labels = np.zeros(10, dtype=np.int64)
    build_ensemble(config, folder / "caches", folder / "ensemble", labels)
    return Ensemble(folder / "ensemble")


def pipeline(count: int = IMAGES, device: torch.device = CPU) -> ViewPipeline:
    """Random images of CIFAR's shape."""
    images = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8)
    return ViewPipeline(
        PlainPipeline(ArrayStore(images), [0.5] * 3, [0.25] * 3, device),
        ViewFamily(PaddedCrops(0, 4, True, 162)),
    )


def stepper(objective: Objective, inputs: Callable[[int], tuple[Any, ...]]) -> Callable[[], None]:
    """A function that takes one training step, as the engine does."""
    optimizers, step = [GroupOptimizer(each) for each in objective.parameter_groups()], 0
    objective.train()

    def run() -> None:
        nonlocal step
        step += 1
        loss, _ = objective(*inputs(step))
        objective.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step(step, 1000, 1)

    return run


def supervised_step(student: NetworkSpec, views: ViewPipeline) -> Callable[[], None]:
    """A step of plain training on labels."""
    labels = torch.randint(0, CLASSES, (IMAGES,))

    def inputs(step: int) -> tuple[Any, ...]:
        rows = _rows(step)
        return views.view(rows, 0), labels[rows]

    settings = Training(lr=0.01, epochs=1, batch_size=BATCH)
    return stepper(SupervisedObjective(build(student), settings), inputs)


def distillation_step(
    student: NetworkSpec, views: ViewPipeline, ensemble: Ensemble, **changes: Any
) -> Callable[[], None]:
    """A step of MEAL, with all blocks and discriminators unless `changes` say otherwise."""
    settings = Distill.model_validate(
        {"lr": 0.01, "epochs": 1, "batch_size": BATCH, "discriminator": {"lr": 0.001}, **changes}
    )
    objective = DistillationObjective(with_blocks(build(student), student, 3), settings, CLASSES)
    reader, labels = TargetReader(ensemble, settings, 0, CPU), torch.zeros(IMAGES, dtype=torch.long)

    def inputs(step: int) -> tuple[Any, ...]:
        rows = _rows(step)
        pixels = views.view(rows, 0)
        return pixels, labels[rows], reader.targets(TargetBatch(rows, 0, step, pixels))

    return stepper(objective, inputs)


def _rows(step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randint(0, IMAGES, (BATCH,), generator=generator)


def cached_seconds(
    student: NetworkSpec, views: ViewPipeline, number: int, repeats: int
) -> dict[str, float]:
    """Seconds of a supervised step, and of steps with the caches of `number` teachers."""
    with tempfile.TemporaryDirectory() as folder:
        ensemble = make_teachers(Path(folder), OFFICIAL, number, online=False)
        sides = {"supervised": supervised_step(student, views)}
        for selection in ("random", "mean"):
            sides[f"cached_{selection}"] = distillation_step(
                student, views, ensemble, selection=selection
            )
        return medians(sides, repeats)


def online_ratio(
    student: NetworkSpec, views: ViewPipeline, archs: Sequence[str], number: int, repeats: int
) -> float:
    """The cost of a step with the mean of `number` online teachers, over a supervised step."""
    with tempfile.TemporaryDirectory() as folder:
        ensemble = make_teachers(Path(folder), archs, number, online=True)
        online = distillation_step(student, views, ensemble, selection="mean")
        seconds = medians(
            {"supervised": supervised_step(student, views), "online": online}, repeats
        )
        return seconds["online"] / seconds["supervised"]


def run(numbers: Sequence[int] = (1, 3, 5, 10)) -> None:
    """Measure every student, number of teachers and mode."""
    rows: list[dict[str, Any]] = []
    views = pipeline()
    for title, (arch, width, repeats) in STUDENTS.items():
        student = spec(arch, width)
        # One random teacher per step costs the mean of what each costs alone.
        alone = [online_ratio(student, views, [teacher], 1, repeats=1) for teacher in OFFICIAL]
        for number in numbers:
            seconds = cached_seconds(student, views, number, repeats)
            teachers = [index % len(OFFICIAL) for index in range(number)]
            ratios = {mode: value / seconds["supervised"] for mode, value in seconds.items()}
            ratios["online_random"] = sum(alone[index] for index in teachers) / number
            ratios["online_mean"] = (
                alone[0]
                if number == 1
                else online_ratio(student, views, OFFICIAL, number, repeats=1)
            )
            for mode, ratio in ratios.items():
                milliseconds = 1000 * ratio * seconds["supervised"]
                # Both selections read a cache in the same mode; online, they are two modes.
                name, _, selection = mode.partition("_")
                rows.append(
                    {
                        "student": title,
                        "macs": count(student).macs,
                        "teachers": number,
                        "mode": "cached" if name == "cached" else mode,
                        "selection": selection or None,
                        "milliseconds": round(milliseconds, 1),
                        "ratio": round(ratio, 3),
                    }
                )
                print(rows[-1], flush=True)
    report("step_cost", rows, "a step relative to a supervised step of the same student, batch 128")
