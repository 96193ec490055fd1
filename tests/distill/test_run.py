from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from meal.core.digests import sha256
from meal.core.errors import UserError
from meal.core.work import WorkFolder
from meal.data.prepared import Prepared
from meal.distill.objective import DistillationObjective
from meal.distill.run import distill
from meal.distill.settings import DistillSlice
from meal.models.checkpoint import save
from meal.models.factory import build
from meal.models.settings import NetworkSlice
from meal.models.spec import specify
from meal.targets.ensemble import Ensemble
from meal.training.checkpoints import Checkpoints
from meal.training.contract import Trained
from tests.caches import CPU, VIEWS, build_cache, build_ensemble, cache_slice, make_cache
from tests.conftest import distill_settings


def make_ensemble(data: Prepared, folder: Path, **cache: Any) -> Ensemble:
    for name, seed in (("one", 1), ("two", 2)):
        make_cache(data, folder, name, seed, **cache)
    return build_ensemble(folder, "one", "two", labels=data.labels("validation").numpy())


@pytest.fixture
def ensemble(data: Prepared, tmp_path: Path) -> Ensemble:
    return make_ensemble(data, tmp_path)


def run(data: Prepared, ensemble: Ensemble, folder: Path, **changes: Any) -> Trained:
    config = DistillSlice.model_validate(
        {
            "name": "small",
            "network": changes.pop("network", {"arch": "tiny", "width": 0.5}),
            "views": VIEWS,
            "view_count": changes.pop("view_count", 3),
            "alignment": changes.pop("alignment", "spatial"),
            "block_count": 3,
            "distill": distill_settings(**{"epochs": 4, **changes}).model_dump(),
        }
    )
    work = WorkFolder(folder, "distill", {"c": str(changes)})
    return distill(config, data, ensemble, CPU, Checkpoints(work))


def assert_same(first: Trained, second: Trained) -> None:
    assert first.history == second.history
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)


@contextmanager
def dies_after_two_epochs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interrupt the run in the block when its second epoch is saved."""
    save = Checkpoints.save

    def save_and_die(self: Checkpoints, step: int, state: dict[str, Any]) -> None:
        save(self, step, state)
        if len(state["history"]) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", save_and_die)
        yield


@pytest.mark.parametrize("mode", ["off", "minimax", "non_saturating", "cooperative"])
@pytest.mark.parametrize("selection", ["random", "mean", "random_per_image"])
def test_every_mode_and_selection_learns_from_the_teachers(
    mode: str, selection: str, data: Prepared, ensemble: Ensemble, tmp_path: Path
) -> None:
    history = run(data, ensemble, tmp_path / "w", adversarial=mode, selection=selection).history
    assert history[-1]["similarity"] < history[0]["similarity"]
    assert ("discriminator_accuracy" in history[0]) is (mode != "off")
    assert ("validation_discriminator_accuracy" in history[0]) is (mode != "off")


def test_an_interrupted_student_ends_with_the_same_bytes(
    data: Prepared, ensemble: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(data, ensemble, tmp_path / "whole")
    with dies_after_two_epochs(monkeypatch):
        run(data, ensemble, tmp_path / "parts")
    assert_same(whole, run(data, ensemble, tmp_path / "parts"))


def test_equal_seeds_give_the_same_bytes_and_others_do_not(
    data: Prepared, ensemble: Ensemble, tmp_path: Path
) -> None:
    first, again = (run(data, ensemble, tmp_path / name, epochs=1) for name in "ab")
    other = run(data, ensemble, tmp_path / "c", epochs=1, seed=1)
    assert_same(first, again)
    assert not torch.equal(first.state["5.weight"], other.state["5.weight"])


def test_a_block_that_the_student_lacks_is_reported(
    data: Prepared,
    ensemble: Ensemble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from meal.models.zoo import registry as zoo
    from tests.conftest import tiny_network

    def two_levels(*arguments: Any) -> nn.Module:
        network: Any = tiny_network(*arguments)
        network[0][0].stride = (2, 2)  # maps of 8, 4 and 2 pixels: the last is too small
        return network

    monkeypatch.setitem(zoo.ZOO, "tiny", zoo.Architecture(two_levels, scales=True))
    run(data, ensemble, tmp_path / "w", epochs=1)
    assert "block 2 is skipped: the student small lacks it" in capsys.readouterr().out


@pytest.mark.parametrize("selection", ["random", "mean", "random_per_image"])
def test_a_float32_cache_and_online_teachers_give_the_same_bytes(
    selection: str, data: Prepared, tmp_path: Path
) -> None:
    """The blocks of the mean need a cache: `configure` refuses them without one."""
    cached = make_ensemble(data, tmp_path / "cached", dtype="float32")
    online = make_ensemble(data, tmp_path / "online", enabled=False)
    assert not (online.folder / "one" / "logits.npy").exists()
    changes: dict[str, Any] = {"selection": selection}
    if selection == "mean":
        changes["blocks"] = []
    from_cache = run(data, cached, tmp_path / "a", **changes)
    assert_same(from_cache, run(data, online, tmp_path / "b", **changes))


def test_a_float16_cache_changes_results_only_by_rounding(data: Prepared, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 1, "adversarial": "off"}
    half = make_ensemble(data, tmp_path / "half")
    full = make_ensemble(data, tmp_path / "full", dtype="float32")
    from_half = run(data, half, tmp_path / "a", **settings)
    from_full = run(data, full, tmp_path / "b", **settings)
    similarity = from_full.history[0]["similarity"]
    assert from_half.history[0]["similarity"] == pytest.approx(similarity, rel=1e-3)
    for name, weights in from_full.state.items():
        assert torch.allclose(from_half.state[name], weights, atol=1e-3), name


def test_a_student_learns_from_the_mean_over_views_and_resumes(
    data: Prepared, ensemble: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(data, ensemble, tmp_path / "whole", targets="image")
    assert whole.history[-1]["similarity"] < whole.history[0]["similarity"]
    assert whole.history != run(data, ensemble, tmp_path / "view").history
    with dies_after_two_epochs(monkeypatch):
        run(data, ensemble, tmp_path / "parts", targets="image")
    assert_same(whole, run(data, ensemble, tmp_path / "parts", targets="image"))


@pytest.mark.parametrize("selection", ["random", "mean"])
def test_the_held_out_discriminator_sees_the_targets_of_its_training(
    selection: str, data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def accuracy(self: DistillationObjective, student: Tensor, teacher: Tensor) -> float:
        seen.append(teacher)
        return 60.0 + len(seen)

    monkeypatch.setattr(DistillationObjective, "held_out_accuracy", accuracy)
    ensemble = make_ensemble(data, tmp_path, top_k=1)
    caches = [ensemble.mean] if selection == "mean" else [*ensemble.members.values()]
    history = run(data, ensemble, tmp_path / "w", selection=selection, blocks=[], epochs=1).history
    assert history[0]["validation_discriminator_accuracy"] == (61.0 if len(caches) == 1 else 61.5)
    for targets, cache in zip(seen, caches, strict=True):
        top = np.sort(targets.numpy(), axis=1)
        assert np.array_equal(top[:, 0], top[:, 1])  # a flat tail
        assert np.array_equal(targets.argmax(1), cache.plain_logits("validation").argmax(1))


def test_a_student_learns_from_top_k_targets(data: Prepared, tmp_path: Path) -> None:
    ensemble = make_ensemble(data, tmp_path, top_k=2)
    history = run(data, ensemble, tmp_path / "w", epochs=8).history
    assert history[-1]["similarity"] < history[0]["similarity"]


@pytest.mark.parametrize("mode", ["minimax", "non_saturating"])
def test_a_student_learns_from_projected_blocks(mode: str, data: Prepared, tmp_path: Path) -> None:
    ensemble = make_ensemble(data, tmp_path, align="projected")
    history = run(
        data, ensemble, tmp_path / "w", alignment="projected", adversarial=mode, epochs=6
    ).history
    assert history[-1]["similarity"] < history[0]["similarity"]


def test_a_student_can_start_from_weights(
    data: Prepared, ensemble: Ensemble, tmp_path: Path
) -> None:
    first = run(data, ensemble, tmp_path / "a")
    save(tmp_path / "start", first.spec, first.state, steps=12)
    path = tmp_path / "start" / "weights.safetensors"
    init = {"file": str(path), "sha256": sha256(path)}
    frozen: dict[str, Any] = {"lr": 1e-9, "epochs": 1, "adversarial": "off"}
    started = run(data, ensemble, tmp_path / "b", init=init, **frozen)
    weight = first.state["5.weight"]
    assert torch.allclose(started.state["5.weight"], weight, atol=1e-6)
    fresh = run(data, ensemble, tmp_path / "c", **frozen)
    assert fresh.steps is not None and started.steps == fresh.steps + 12
    assert not torch.allclose(fresh.state["5.weight"], weight, atol=1e-3)
    with pytest.raises(UserError, match=r"distill.init.sha256='0+'"):
        run(data, ensemble, tmp_path / "d", init={**init, "sha256": "0" * 64})


def test_an_average_of_the_weights_is_kept_and_resumed(
    data: Prepared, ensemble: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = run(data, ensemble, tmp_path / "a")
    averaged = run(data, ensemble, tmp_path / "b", ema=0.9)
    assert not torch.equal(last.state["5.weight"], averaged.state["5.weight"])
    with dies_after_two_epochs(monkeypatch):
        run(data, ensemble, tmp_path / "c", ema=0.9)
    assert_same(averaged, run(data, ensemble, tmp_path / "c", ema=0.9))


VIT = {"patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 2}
CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
UNLIKE: dict[str, dict[str, Any]] = {
    "vgg": {"arch": "vgg19", "width": 0.1},
    "densenet": {"arch": "densenet", "width": 0.1},
    "vit": {"arch": "timm/vit_tiny_patch16_224", "options": VIT},
    "convnext": {"arch": "timm/convnext_atto", "options": CONVNEXT, "input": {"size": 32}},
    "own": {"arch": "networks.example:small_convnet", "blocks": ["stage1", "stage2", "stage3"]},
}


@pytest.mark.parametrize("align", ["spatial", "projected"])
def test_networks_of_any_structure_can_teach_one_student_block_by_block(
    align: str, data: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, network in UNLIKE.items():
        spec = specify(NetworkSlice.model_validate(network), data)
        save(tmp_path / name, spec, dict(build(spec, seed=1).state_dict()))
        config = cache_slice(name, views=2, align=align)
        work = WorkFolder(tmp_path / "work", f"cache@{name}", {})
        build_cache(config, data, tmp_path / name, tmp_path / "caches" / name, work)
    ensemble = build_ensemble(tmp_path, *UNLIKE)
    assert {name: cache.blocks for name, cache in ensemble.members.items()} == {
        "vgg": [1, 2, 3],
        "densenet": [1, 2, 3],
        "vit": [1, 2, 3],
        "convnext": [1, 3],  # sees 32 pixels, and has two levels of 4x4 or more
        "own": [1, 2, 3],
    }
    student = {"arch": "mobilenet", "width": 0.1}
    history = run(
        data, ensemble, tmp_path / "w", alignment=align, network=student, view_count=2, epochs=12
    ).history
    similarity = [row["similarity"] for row in history]  # of another random teacher in each step
    assert sum(similarity[-4:]) < sum(similarity[:4])
    output = capsys.readouterr().out
    assert "block 2 is skipped for convnext, which lacks it" in output
    assert "block 3 is skipped" not in output
