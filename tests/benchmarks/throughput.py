"""Images a second in training, beside what the student's own arithmetic allows; a forecast from it.

On a GPU if there is one. Steps are those of the engine: views, targets, losses and optimizers.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from meal.core.device import open_device
from meal.core.runtime import Runtime
from meal.core.work import WorkFolder
from meal.distill.objective import DistillationObjective
from meal.distill.settings import Distill
from meal.distill.teachers import TargetBatch, TargetReader
from meal.models.factory import build, with_blocks
from meal.models.spec import NetworkSpec
from meal.supervised.objective import SupervisedObjective
from meal.training.checkpoints import Checkpoints
from meal.training.contract import Objective, Run
from meal.training.engine import train
from meal.training.settings import Training
from tests.benchmarks.common import report
from tests.benchmarks.step_cost import CLASSES, OFFICIAL, VIEWS, make_teachers, pipeline, spec
from tests.conftest import recipe_params

TEACHERS = (1, 2, 5, 10)
BATCH, EPOCHS = 128, 3  # the first epoch warms up
# On a GPU, and on a CPU: the student's width, images in an epoch, precision and compilation.
SIZES = {"cuda": (1.0, 45_056), "cpu": (0.25, 1024)}
MODES = {
    "cuda": (("float32", "none"), ("bfloat16", "none"), ("bfloat16", "reduce-overhead")),
    "cpu": (("float32", "none"),),
}
Batches = Callable[[int, int], Iterator[tuple[Any, ...]]]


class Bench:
    """Random images of CIFAR's shape on a device, and training on them."""

    def __init__(self, device: torch.device, images: int, batch: int) -> None:
        """Draw the images, and labels for them."""
        self.device, self.steps, self.batch = device, images // batch, batch
        self.utilisation: float | None = None  # of the GPU, in the last training
        self.views = pipeline(images, device)
        self.labels = torch.randint(0, CLASSES, (images,), device=device)

    def order(self, epoch: int) -> Iterator[tuple[int, Tensor]]:
        """The views and rows of an epoch."""
        rows = torch.randperm(self.steps * self.batch, generator=torch.Generator().manual_seed(0))
        return ((epoch % VIEWS, part) for part in rows.split(self.batch))

    def bare(self, network_spec: NetworkSpec, precision: str, compiled: str) -> float:
        """Images a second of forward and backward passes over one batch in memory."""
        network = build(network_spec).to(self.device).train()
        if compiled != "none":
            network.compile(mode=compiled)
        images = torch.randn(self.batch, 3, 32, 32, device=self.device)
        images = images.to(memory_format=torch.channels_last)
        autocast = torch.autocast(self.device.type, torch.bfloat16, precision == "bfloat16")

        def passes() -> None:
            for _ in range(self.steps):
                with autocast:
                    loss = network(images).float().logsumexp(1).mean()
                network.zero_grad(set_to_none=True)
                loss.backward()

        return self.steps * self.batch / self._seconds(passes)

    def forward(self, network_spec: NetworkSpec) -> float:
        """Images a second of a teacher that answers."""
        network = build(network_spec).to(self.device).eval()
        images = torch.randn(self.batch, 3, 32, 32, device=self.device)

        @torch.inference_mode()
        def passes() -> None:
            for _ in range(self.steps):
                network(images)

        return self.steps * self.batch / self._seconds(passes)

    def supervised(self, network_spec: NetworkSpec, **settings: Any) -> float:
        """Images a second of training on labels."""
        training = Training(lr=0.01, epochs=EPOCHS, batch_size=self.batch, **settings)
        objective = SupervisedObjective(build(network_spec).to(self.device), training)

        def batches(epoch: int, first: int) -> Iterator[tuple[Any, ...]]:
            for batch in self.views.batches(self.order(epoch)):
                yield batch.images, batch.labels(self.labels, CLASSES)

        return self._trained(network_spec, objective, training, batches)

    def distilled(self, network_spec: NetworkSpec, teachers: int, **settings: Any) -> float:
        """Images a second of MEAL with all blocks and discriminators, and cached teachers."""
        method = Distill.model_validate(
            {
                "lr": 0.01, "epochs": EPOCHS, "batch_size": self.batch, "blocks": [1, 2, 3],
                "discriminator": {"lr": 0.001}, **settings,
            }
        )  # fmt: skip
        student = with_blocks(build(network_spec), network_spec, 3)
        objective = DistillationObjective(student, method, CLASSES).to(self.device)
        with tempfile.TemporaryDirectory() as folder:
            images = self.steps * self.batch
            ensemble = make_teachers(Path(folder), OFFICIAL, teachers, False, images)
            reader = TargetReader(ensemble, method, 0, self.device)

            def batches(epoch: int, first: int) -> Iterator[tuple[Any, ...]]:
                for step, batch in enumerate(self.views.batches(self.order(epoch))):
                    asked = TargetBatch(batch.rows, batch.view, step, batch.images)
                    labels = batch.labels(self.labels, CLASSES)
                    yield batch.images, labels, reader.targets(asked)

            return self._trained(network_spec, objective, method, batches)

    def _trained(
        self, network_spec: NetworkSpec, objective: Objective, settings: Training, batches: Batches
    ) -> float:
        """Images a second from the end of the first epoch to that of the last."""
        ends: list[float] = []
        seen: list[Utilisation] = []

        def validate(network: torch.nn.Module) -> dict[str, float]:
            self._wait()
            ends.append(time.perf_counter())
            if len(ends) == 1:  # the epoch that warms up has ended
                seen.append(Utilisation(self.device))
            elif len(ends) == EPOCHS:
                self.utilisation = seen[0].stop()
            return {"top1_error": 0.0, "nll": 0.0}

        with tempfile.TemporaryDirectory() as folder:
            work = WorkFolder(Path(folder), "bench", {})
            run = Run(
                title="bench", spec=network_spec, objective=objective, settings=settings, seed=0,
                steps_per_epoch=self.steps, batches=batches, validate=validate,
                checkpoints=Checkpoints(work, 1e6),
            )  # fmt: skip
            with contextlib.redirect_stdout(None), contextlib.redirect_stderr(io.StringIO()):
                train(run)
            work.release()
        return (len(ends) - 1) * self.steps * self.batch / (ends[-1] - ends[0])

    def _seconds(self, passes: Callable[[], None]) -> float:
        passes()
        self._wait()
        started = time.perf_counter()
        passes()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class Utilisation:
    """The utilisation of a GPU in percent, every 0.2 s, as nvidia-smi sees it; nothing on a CPU."""

    def __init__(self, device: torch.device) -> None:
        """Start to look, if there is a GPU and nvidia-smi."""
        self._sampler = None
        if device.type == "cuda" and shutil.which("nvidia-smi"):
            number = torch.cuda.current_device() if device.index is None else device.index
            query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
            command = ["nvidia-smi", f"--id={number}", *query, "-lms", "200"]
            self._sampler = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def stop(self) -> float | None:
        """The mean since the start; None if there was nothing to see."""
        if self._sampler is None:
            return None
        self._sampler.terminate()
        seen = [line for line in self._sampler.communicate()[0].split() if line.isdigit()]
        return sum(map(float, seen)) / len(seen) if seen else None


def run() -> None:
    """Measure training on labels, and MEAL with several numbers of teachers."""
    device = open_device(Runtime())
    width, images = SIZES[device.type]
    bench, student = Bench(device, images, BATCH), spec("resnet18", width)
    rows = []
    for precision, compiled in MODES[device.type]:
        chosen = {"precision": precision, "compile": compiled}
        sides = {"labels": partial(bench.supervised, student, **chosen)}
        for teachers in TEACHERS:
            name = f"MEAL, {teachers} teachers"
            sides[name] = partial(bench.distilled, student, teachers, **chosen)
        for name, side in sides.items():
            limit = bench.bare(student, precision, compiled)  # beside each: machines are shared
            speed = side()
            row = {**chosen, "training": name, "images_per_second": round(speed)}
            row |= {"limit": round(limit), "of_limit": round(speed / limit, 3)}
            if bench.utilisation is not None:
                row["utilisation"] = round(bench.utilisation, 1)
            rows.append(row)
    note = f"ResNet-18, width {width:g}, batch {BATCH}; limit: forward and backward of one batch"
    report("throughput", rows, f"{note}; {device.type}")


def run_cifar10() -> None:
    """Forecast the CIFAR-10 recipe from the speed of each of its networks, measured here."""
    device = open_device(Runtime())
    gpu = device.type == "cuda"
    params = recipe_params("cifar10")
    teaching, distill = params["teaching"], params["distill"]
    size = 12_800 if gpu else 32
    bench = Bench(device, size, teaching["batch_size"] if gpu else 16)
    student_bench = Bench(device, size, distill["batch_size"] if gpu else 16)
    images, views = 45_000, 162 + 1  # every padded crop with its mirror image, and the plain one
    networks = {name: spec(params["networks"][name]["arch"]) for name in params["teachers"]}
    rows: list[dict[str, Any]] = []
    for name, network in networks.items():
        learns, answers = bench.supervised(network), bench.forward(network)
        hours = teaching["epochs"] * images / learns / 3600
        rows.append({"stage": f"teacher@{name}", "images_per_second": learns, "hours": hours})
        hours = views * images / answers / 3600
        rows.append({"stage": f"cache@{name}", "images_per_second": answers, "hours": hours})
    student = networks[params["student"]]
    for stage, speed in (
        ("baseline", student_bench.supervised(student)),
        ("distill", student_bench.distilled(student, len(networks), blocks=distill["blocks"])),
    ):
        hours = distill["epochs"] * images / speed / 3600
        rows.append({"stage": stage, "images_per_second": speed, "hours": hours})
    total = sum(row["hours"] for row in rows)
    shown = [{key: _rounded(value) for key, value in row.items()} for row in rows]
    note = f"forecast of `meal recipe cifar10`: {total:.1f} hours ({total / 24:.1f} days)"
    report(
        "cifar10",
        shown,
        f"{note}; {device.type}, batches of {bench.batch} and {student_bench.batch}",
    )


def _rounded(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value
