from __future__ import annotations

import contextlib
import fcntl
import math
import multiprocessing
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from meal.core import progress as progress_module
from meal.core.device import environment, open_device, select_device
from meal.core.errors import UserError
from meal.core.progress import Progress, fitting, shortened
from meal.core.runtime import Runtime
from meal.core.seeds import Purpose
from meal.core.signals import Interrupted
from meal.core.work import WorkFolder
from meal.data.prepared import Prepared
from meal.models.checkpoint import training_steps
from meal.models.spec import NetworkSpec
from meal.supervised import run as supervised
from meal.supervised.run import train_supervised
from meal.supervised.settings import SupervisedSlice
from meal.training.checkpoints import Checkpoints
from meal.training.contract import Objective, Run, Trained
from meal.training.engine import train
from meal.training.optimizer import GroupOptimizer, ParameterGroup
from meal.training.schedule import factor
from meal.training.settings import Optimisation, Training
from tests.conftest import ROOT

CPU = torch.device("cpu")


def config(**changes: Any) -> SupervisedSlice:
    return SupervisedSlice.model_validate(
        {
            "name": "one",
            "network": {"arch": "tiny", "seed": 0},
            "views": {"seed": 0, "crop_padding": 1, "flip": False, "size": 9},
            "training": {"epochs": 6, "batch_size": 32, "lr": 0.1, **changes},
        }
    )


def run_supervised(
    data: Prepared, folder: Path, purpose: Purpose = Purpose.TEACHER, **changes: Any
) -> tuple[Trained, WorkFolder]:
    work = WorkFolder(folder, "teacher@one", {"config": str(changes)})
    made = Checkpoints(work)
    return train_supervised("teacher one", purpose, config(**changes), data, CPU, made), work


def assert_same(first: Trained, second: Trained) -> None:
    assert first.history == second.history
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)


def test_training_learns_and_keeps_the_best_epoch(data: Prepared, tmp_path: Path) -> None:
    trained, _ = run_supervised(data, tmp_path / "work")
    state, history = trained.state, trained.history
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    best = min(history, key=lambda row: (row["validation_top1_error"], row["validation_nll"]))
    assert best["validation_top1_error"] < 34  # chance is 67% with three classes
    assert state["1.1.num_batches_tracked"] == 3 * best["epoch"]


def test_the_same_seed_gives_the_same_bytes_and_purposes_differ(
    data: Prepared, tmp_path: Path
) -> None:
    first, again = (run_supervised(data, tmp_path / name, epochs=2)[0] for name in "ab")
    baseline, _ = run_supervised(data, tmp_path / "c", Purpose.BASELINE, epochs=2)
    assert_same(first, again)
    assert not torch.equal(first.state["5.weight"], baseline.state["5.weight"])


def test_teachers_of_one_seed_share_neither_orders_nor_views() -> None:
    """Teachers that see the same in the same order make more of the same errors."""
    one = config()
    one = one.model_copy(update={"views": one.views.model_copy(update={"seed": 7})})
    two = one.model_copy(update={"name": "two"})
    draws = [supervised._draws(each, Purpose.TEACHER) for each in (one, two)]
    seeds = {seed for seed, _ in draws} | {views.seed for _, views in draws} | {one.views.seed}
    assert len(seeds) == 5
    assert supervised._draws(one, Purpose.BASELINE)[1] == one.views  # the student's


def test_teachers_of_one_seed_train_on_other_batches(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def first_batch(run: Run) -> Trained:
        seen.append(next(run.batches(0, 0)))
        return train(run)

    monkeypatch.setattr(supervised, "train", first_batch)
    for name in ("one", "two", "one"):
        own = config(epochs=1).model_copy(update={"name": name})
        made = Checkpoints(WorkFolder(tmp_path / str(len(seen)), "teacher@one", {}))
        train_supervised("teacher", Purpose.TEACHER, own, data, CPU, made)
    (images, labels), (others, their_labels), (again, _) = seen
    assert torch.equal(images, again) and not torch.equal(images, others)
    assert not torch.equal(labels, their_labels)


def test_weights_know_the_steps_behind_them(data: Prepared, tmp_path: Path) -> None:
    trained, _ = run_supervised(data, tmp_path / "work", epochs=2)
    trained.save(tmp_path / "network", tmp_path / "curve.csv")
    copied = tmp_path / "start.safetensors"
    copied.write_bytes((tmp_path / "network" / "weights.safetensors").read_bytes())
    assert training_steps(copied) == trained.steps == 2 * 3


def test_training_on_labels_leaves_no_hooks_on_the_network(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leftover hook would keep every step's feature maps and their graphs in memory."""
    trained: list[Run] = []

    def spy(run: Run) -> Any:
        trained.append(run)
        return train(run)

    monkeypatch.setattr(supervised, "train", spy)
    run_supervised(data, tmp_path / "work", epochs=1)
    modules = trained[0].objective.network.modules()
    assert not any(module._forward_hooks for module in modules)


@pytest.mark.parametrize("stop_after", [1, 3])
@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "adamw", "lr": 0.01, "clip_norm": 1.0, "decay_norms": False, "ema": 0.5}],
)
def test_an_interrupted_run_ends_with_the_same_bytes(
    changes: dict[str, Any],
    stop_after: int,
    data: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, _ = run_supervised(data, tmp_path / "whole", **changes)
    save = Checkpoints.save

    def save_and_die(self: Checkpoints, step: int, state: dict[str, Any]) -> None:
        save(self, step, state)
        if step == 3 * stop_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", save_and_die)
        run_supervised(data, tmp_path / "parts", **changes)
    assert_same(whole, run_supervised(data, tmp_path / "parts", **changes)[0])


def test_runs_with_other_parameters_have_other_checkpoints(data: Prepared, tmp_path: Path) -> None:
    _, work = run_supervised(data, tmp_path / "work", epochs=2)
    assert list(work.path.glob("*.pt"))
    work.release()
    _, other = run_supervised(data, tmp_path / "work", epochs=2, lr=0.01)
    assert other.path != work.path


def test_a_damaged_checkpoint_is_replaced_by_the_previous_one(
    data: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, work = run_supervised(data, tmp_path / "work", epochs=3)
    newest = work.path / "000000009.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    work.release()  # as when the owner dies
    resumed, _ = run_supervised(data, tmp_path / "work", epochs=3)
    assert "000000009.pt is damaged" in caplog.text
    assert_same(whole, resumed)


def test_the_last_two_checkpoints_are_kept(data: Prepared, tmp_path: Path) -> None:
    _, work = run_supervised(data, tmp_path / "work", epochs=5)
    assert sorted(path.name for path in work.path.glob("*.pt")) == ["000000012.pt", "000000015.pt"]
    work.remove()
    assert not work.path.exists()


def test_a_stage_cannot_be_run_twice_at_once(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path, "distill", {"a": 1})
    for parameters in (1, 2):  # other parameters would write the same outputs
        with pytest.raises(UserError, match=r"distill is already being run by process \d+"):
            WorkFolder(tmp_path, "distill", {"a": parameters})
    WorkFolder(tmp_path, "baseline", {"a": 1})
    work.release()  # as when the owner dies
    WorkFolder(tmp_path, "distill", {"a": 1})


def outlive(ready: Any) -> None:
    ready.set()
    time.sleep(60)


def test_a_worker_that_outlives_its_owner_holds_no_lock(tmp_path: Path) -> None:
    """Decoding workers are forked, and notice only seconds later that their owner was killed."""
    work, context = WorkFolder(tmp_path, "distill", {}), multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=outlive, args=(ready,), daemon=True)
    worker.start()
    assert ready.wait(30)
    work.release()
    WorkFolder(tmp_path, "distill", {})
    worker.kill()


class Line(Objective):
    """One weight that should become 1; the second group has its own learning rate."""

    def __init__(self, rates: list[Optimisation]) -> None:
        super().__init__()
        self.network = nn.Linear(1, 1, bias=False)
        self.other = nn.ParameterList([torch.zeros(1)])
        self.rates = rates

    def parameter_groups(self) -> list[ParameterGroup]:
        groups = (self.network, self.other)
        return [ParameterGroup(g, r) for g, r in zip(groups, self.rates, strict=True)]

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        error = (self.network(images) - images).square().mean()
        return error + (self.other[0] - 1).square().sum(), {"error": error}


def line_run(tmp_path: Path, settings: Training, **changes: Any) -> Run:
    options: dict[str, Any] = {
        "title": "line",
        "spec": NetworkSpec("line", 1.0, 1, 1, 1),
        "objective": Line([settings, Optimisation(lr=0.01, schedule="constant")]),
        "settings": settings,
        "seed": 0,
        "steps_per_epoch": 2,
        "batches": lambda epoch, first: iter([(torch.ones(4, 1),)] * 2),
        "validate": lambda network: {"top1_error": 1.0, "nll": float(epoch_of(network))},
        "checkpoints": Checkpoints(WorkFolder(tmp_path, "line", {})),
    }
    return Run(**{**options, **changes})


def epoch_of(network: nn.Module) -> float:
    return float(network.weight.detach())  # type: ignore[operator]


def test_each_group_follows_its_own_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Training(
        lr=0.5, epochs=3, batch_size=4, schedule="step", milestones=[1, 2], momentum=0.0,
        nesterov=False,
    )  # fmt: skip
    rates: list[float] = []
    step = GroupOptimizer.step

    def spy(self: GroupOptimizer, *args: Any) -> None:
        step(self, *args)
        rates.append(self.rate)

    monkeypatch.setattr(GroupOptimizer, "step", spy)
    train(line_run(tmp_path, settings))
    assert [round(own, 6) for own in rates[::2]] == [0.5, 0.5, 0.05, 0.05, 0.005, 0.005]
    assert {*rates[1::2]} == {0.01}


def test_early_stopping_ends_the_run_when_nothing_improves(tmp_path: Path) -> None:
    errors = [5.0, 4.0, 4.5, 4.0, 9.0, 1.0]
    settings = Training(lr=0.1, epochs=6, batch_size=4, keep="best", early_stopping=3)
    shown: list[torch.Tensor] = []

    def validate(network: nn.Module) -> dict[str, float]:
        shown.append(network.weight.detach().clone())  # type: ignore[operator]
        return {"top1_error": errors[len(shown) - 1], "nll": 1.0}

    run = line_run(tmp_path, settings, validate=validate)
    stopped = train(run)
    assert [row["validation_top1_error"] for row in stopped.history] == errors[:5]
    assert stopped.steps == 10
    assert torch.equal(stopped.state["weight"], shown[1])
    again = train(run)  # from its last checkpoint: there is nothing left to do
    assert again.history == stopped.history and len(shown) == 5


def test_a_loss_that_is_not_finite_stops_at_its_step_and_keeps_the_checkpoint(
    tmp_path: Path,
) -> None:
    settings = Training(lr=0.1, epochs=3, batch_size=4)

    def batches(epoch: int, first: int) -> Iterator[tuple[torch.Tensor]]:
        yield (torch.ones(4, 1),)
        yield (torch.full((4, 1), math.nan if epoch == 1 else 1.0),)

    run = line_run(tmp_path, settings, batches=batches)
    with pytest.raises(UserError, match=r"line: the loss is nan at step 3 \(lr=.*error=nan\)"):
        train(run)
    state = run.checkpoints.load()
    assert state is not None
    assert len(state["history"]) == 1
    assert all(torch.isfinite(value).all() for value in state["objective"].values())


def test_a_missing_gpu_is_a_clear_error() -> None:
    if torch.cuda.is_available():
        assert select_device("auto").type == "cuda"
    else:
        assert select_device("auto").type == "cpu"
        with pytest.raises(UserError, match=r"runtime.device='cuda': no CUDA device found"):
            select_device("cuda")


def test_schedules_by_hand() -> None:
    cosine = Training(lr=1, epochs=4, batch_size=2)
    assert [factor(cosine, step, 1, 4) for step in (0, 2)] == [1.0, pytest.approx(0.5)]
    assert factor(cosine, 4, 1, 4) == pytest.approx(0.0)
    warm = Training(lr=1, epochs=4, batch_size=2, schedule="constant", warmup_epochs=1)
    assert [factor(warm, step, 3, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    steps = Training(lr=1, epochs=4, batch_size=2, schedule="step", milestones=[1, 3], lr_gamma=0.5)
    assert [factor(steps, step, 2, 4) for step in (0, 1, 2, 5, 6)] == [1, 1, 0.5, 0.5, 0.25]


def test_bfloat16_trains(data: Prepared, tmp_path: Path) -> None:
    trained, _ = run_supervised(data, tmp_path / "work", precision="bfloat16")
    assert trained.history[-1]["loss"] < 0.8 * trained.history[0]["loss"]
    assert trained.state["5.weight"].dtype == torch.float32


def test_progress_is_one_line_an_epoch_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress("teacher one", total=10, unit="steps", epochs=2) as progress:
        for _ in range(5):
            progress.advance(1)
            assert not progress.due()
        progress.end_epoch({"loss": 0.25})
    line = capsys.readouterr().out
    speed = r"\d+\.\d steps/s"
    assert re.fullmatch(rf"teacher one: epoch 1/2 5/10 steps {speed} \d+ s left loss=0.25\n", line)


def test_slow_work_is_measured_in_seconds_per_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 8.0])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    with Progress("slow", total=10, unit="steps") as progress:
        progress.advance(2)
        progress.show({})
    assert "4.0 s/step 32 s left" in capsys.readouterr().out


@pytest.mark.parametrize(("room", "shown"), [(60, 3), (25, 2), (12, 1), (5, 0)])
def test_values_beside_the_bar_fit_and_the_most_important_come_first(room: int, shown: int) -> None:
    values = {"similarity": 1.23456, "loss": 0.5, "validation_top1_error": 12.345}
    text = fitting(values, room)
    assert len(text) <= room
    assert text == ", ".join(["val err 12.3", "loss 0.5", "sim 1.23"][:shown])
    assert shortened("teacher a_network_with_a_long_name", 18) == "teacher a…ong_name"


@pytest.mark.parametrize("columns", [60, 100])
def test_a_terminal_of_any_width_shows_epoch_speed_and_error(columns: int) -> None:
    """On a real terminal of that width."""
    code = (
        "import time\n"
        "from meal.core.progress import Progress\n"
        "with Progress('teacher a_network_with_a_long_name', 40, 'steps', epochs=4) as bar:\n"
        "    for epoch in range(4):\n"
        "        for step in range(10):\n"
        "            bar.advance(1)\n"
        "            time.sleep(0.02)\n"
        "        bar.end_epoch({'loss': 0.123456, 'similarity': 2.0, 'label': 3.0,\n"
        "                       'validation_top1_error': 12.5, 'validation_nll': 0.3})\n"
        "        time.sleep(0.6)\n"
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=theirs, stderr=theirs, stdin=theirs, cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")},
    )  # fmt: skip
    os.close(theirs)
    text = ""
    with contextlib.suppress(OSError):  # the terminal is closed
        while part := os.read(ours, 4096):
            text += part.decode()
    assert process.wait() == 0
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert max(map(len, lines)) <= columns
    last = lines[-1]
    for words in ("4/4", "left", "val err 12.5"):
        assert words in last, last
    assert re.search(r"step/s|s/step", last)


def test_the_curve_grows_after_each_epoch_also_after_a_kill(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = tmp_path / "curve.csv"
    seen: list[int] = []
    usual = supervised.validator

    def watched(*arguments: Any) -> Any:
        validate = usual(*arguments)

        def call(network: nn.Module) -> dict[str, float]:
            seen.append(len(curve.read_text().splitlines()) - 1 if curve.exists() else 0)
            if len(seen) == 4:
                raise RuntimeError("killed")
            return validate(network)

        return call

    def go() -> Trained:
        work = WorkFolder(tmp_path / "work", "teacher@one", {})
        try:
            made = Checkpoints(work)
            own = config(epochs=6)
            return train_supervised("one", Purpose.TEACHER, own, data, CPU, made, curve)
        finally:
            work.release()

    monkeypatch.setattr(supervised, "validator", watched)
    with pytest.raises(RuntimeError):
        go()
    assert seen == [0, 1, 2, 3] and len(curve.read_text().splitlines()) == 4
    curve.unlink()  # as DVC does before it runs the stage again
    trained = go()
    assert seen[4:] == [3, 4, 5]
    grown = curve.read_bytes()
    trained.save(tmp_path / "network", curve)
    assert curve.read_bytes() == grown


@pytest.mark.parametrize("stop_at", [1, 4, 8, 9])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_receives_a_signal_saves_its_step_and_resumes_from_it(
    stop_at: int,
    number: int,
    data: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Step 9 of 18 is the last of its epoch: it is saved before validation."""
    whole, _ = run_supervised(data, tmp_path / "whole")
    step, steps = GroupOptimizer.step, []

    def step_and_signal(self: GroupOptimizer, *args: Any) -> None:
        steps.append(1)
        if len(steps) == stop_at:
            signal.raise_signal(number)
        step(self, *args)

    before = signal.getsignal(number)
    message = ""
    with monkeypatch.context() as patch:
        patch.setattr(GroupOptimizer, "step", step_and_signal)
        try:  # `raises` would keep the frame that owns the lock
            run_supervised(data, tmp_path / "parts")
        except Interrupted as stopped:
            message, status = str(stopped), stopped.status
    assert len(steps) == stop_at and status == 128 + number
    assert f"teacher one is saved at step {stop_at}" in message
    assert signal.getsignal(number) is before
    assert_same(whole, run_supervised(data, tmp_path / "parts")[0])
    assert f"resumed after step {stop_at} of 18" in capsys.readouterr().out


def test_checkpoints_within_an_epoch_change_nothing(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run_supervised(data, tmp_path / "whole", epochs=2)
    monkeypatch.setattr(Checkpoints, "due", lambda self: True)
    saved, work = run_supervised(data, tmp_path / "often", epochs=2)
    assert_same(whole, saved)
    assert sorted(path.name for path in work.path.glob("*.pt")) == ["000000005.pt", "000000006.pt"]


def test_a_checkpoint_is_due_when_its_minutes_have_passed(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path, "line", {})
    assert Checkpoints(work, minutes=0.0).due()
    assert not Checkpoints(work, minutes=10.0).due()
    assert not Checkpoints(work).due()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_is_a_parameter_and_recorded(threads: int) -> None:
    torch.set_num_threads(3 - threads)  # what OMP_NUM_THREADS, or a sweep, has chosen
    device = open_device(Runtime(threads=threads))
    found = environment(device)
    assert found["threads"] == torch.get_num_threads() == threads and found["processes"] == 1
    assert open_device(Runtime()) == device and torch.get_num_threads() == threads  # auto


@pytest.mark.slow
def test_a_compiled_run_trains_alike_and_resumes_with_the_same_bytes(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, _ = run_supervised(data, tmp_path / "eager", epochs=2)
    whole, _ = run_supervised(data, tmp_path / "whole", epochs=2, compile="default")
    for key in ("loss", "validation_nll"):
        assert whole.history[0][key] == pytest.approx(eager.history[0][key], rel=1e-4)
    assert not all(torch.equal(eager.state[name], whole.state[name]) for name in eager.state)
    save = Checkpoints.save

    def save_and_die(self: Checkpoints, step: int, state: dict[str, Any]) -> None:
        save(self, step, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", save_and_die)
        run_supervised(data, tmp_path / "parts", epochs=2, compile="default")
    assert_same(whole, run_supervised(data, tmp_path / "parts", epochs=2, compile="default")[0])


def test_compiling_needs_a_compiler(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="compile='default': it needs no-such-compiler; install"):
        run_supervised(data, tmp_path, compile="default")
