from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from meal.config.slices import DistillSlice
from meal.data.prepared import Prepared
from meal.distillation.distil import distil
from meal.teaching.ensemble import Ensemble, build_ensemble
from meal.training.checkpoint import Checkpoints
from meal.work import WorkFolder
from tests.conftest import distill_settings
from tests.teaching.test_cache import CPU, VIEWS, make_cache


def make_ensemble(data: Prepared, folder: Path, **cache: Any) -> Ensemble:
    for name, seed in (("one", 1), ("two", 2)):
        make_cache(data, folder, name, seed, **cache)
    build_ensemble(["one", "two"], folder / "caches", folder / "ensemble")
    return Ensemble(folder / "ensemble")


@pytest.fixture
def ensemble(data: Prepared, tmp_path: Path) -> Ensemble:
    return make_ensemble(data, tmp_path)


def run(data: Prepared, ensemble: Ensemble, folder: Path, **changes: Any) -> Any:
    config = DistillSlice.model_validate(
        {
            "name": "small",
            "network": {"arch": "tiny", "width": 0.5},
            "views": VIEWS,
            "view_count": 3,
            "block_count": 3,
            "distill": distill_settings(**{"epochs": 4, **changes}).model_dump(),
        }
    )
    return distil(config, data, ensemble, CPU, WorkFolder(folder, "distill", {"c": str(changes)}))


@pytest.mark.parametrize("mode", ["off", "minimax", "non_saturating", "cooperative"])
@pytest.mark.parametrize("selection", ["random", "mean", "random_per_image"])
def test_every_mode_and_selection_learns_from_the_teachers(
    mode: str, selection: str, data: Prepared, ensemble: Ensemble, tmp_path: Path
) -> None:
    _, _, history = run(data, ensemble, tmp_path / "w", adversarial=mode, selection=selection)
    assert history[-1]["similarity"] < history[0]["similarity"]
    assert ("discriminator_accuracy" in history[0]) is (mode != "off")


def test_an_interrupted_student_ends_with_the_same_bytes(
    data: Prepared, ensemble: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole, history = run(data, ensemble, tmp_path / "whole")
    save = Checkpoints.save

    def save_and_die(self: Checkpoints, epoch: int, state: dict[str, Any]) -> None:
        save(self, epoch, state)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", save_and_die)
        run(data, ensemble, tmp_path / "parts")
    _, resumed, resumed_history = run(data, ensemble, tmp_path / "parts")
    assert resumed_history == history
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_seeds_give_the_same_bytes_or_others(
    data: Prepared, ensemble: Ensemble, tmp_path: Path
) -> None:
    first = run(data, ensemble, tmp_path / "a", epochs=1)[1]
    again = run(data, ensemble, tmp_path / "b", epochs=1)[1]
    other = run(data, ensemble, tmp_path / "c", epochs=1, seed=1)[1]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["5.weight"], other["5.weight"])


def test_a_block_that_the_student_lacks_is_said(
    data: Prepared,
    ensemble: Ensemble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from meal.nets import zoo
    from tests.conftest import tiny_network

    two_levels = zoo.Architecture(tiny_network, scales=True, taps=("1", "2"))
    monkeypatch.setitem(zoo.ZOO, "tiny", two_levels)
    run(data, ensemble, tmp_path / "w", epochs=1)
    assert "block 2 is skipped: the student small lacks it" in capsys.readouterr().out


@pytest.mark.parametrize("selection", ["random", "mean", "random_per_image"])
def test_a_float32_cache_and_running_teachers_give_the_same_bytes(
    selection: str, data: Prepared, tmp_path: Path
) -> None:
    cached = make_ensemble(data, tmp_path / "cached", dtype="float32")
    online = make_ensemble(data, tmp_path / "online", enabled=False)
    assert not (online.folder / "one" / "logits.npy").exists()
    _, from_cache, history = run(data, cached, tmp_path / "a", selection=selection)
    _, from_online, online_history = run(data, online, tmp_path / "b", selection=selection)
    assert history == online_history
    assert all(torch.equal(from_cache[name], from_online[name]) for name in from_cache)


def test_a_float16_cache_is_within_rounding(data: Prepared, tmp_path: Path) -> None:
    settings = {"epochs": 1, "adversarial": "off"}
    half = make_ensemble(data, tmp_path / "half")
    full = make_ensemble(data, tmp_path / "full", dtype="float32")
    _, from_half, (row_half,) = run(data, half, tmp_path / "a", **settings)
    _, from_full, (row_full,) = run(data, full, tmp_path / "b", **settings)
    assert row_half["similarity"] == pytest.approx(row_full["similarity"], rel=1e-3)
    for name, weights in from_full.items():
        assert torch.allclose(from_half[name], weights, atol=1e-3), name


def test_a_student_learns_from_the_k_largest(data: Prepared, tmp_path: Path) -> None:
    ensemble = make_ensemble(data, tmp_path, top_k=2)
    _, _, history = run(data, ensemble, tmp_path / "w")
    assert history[-1]["similarity"] < history[0]["similarity"]
