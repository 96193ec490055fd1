"""Few labels, many images: who sees which images, and that every way of running agrees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from meal.core.errors import UserError
from meal.core.seeds import Purpose
from meal.core.work import WorkFolder
from meal.data.pools import labelled_in_batch
from meal.data.prepared import Prepared, open_prepared
from meal.distill.objective import label_loss
from meal.distill.run import _visits
from meal.prepare.preparation import prepare
from meal.prepare.settings import PrepareSlice
from meal.supervised.run import train_supervised
from meal.supervised.settings import SupervisedSlice
from meal.training.checkpoints import Checkpoints
from meal.views.pipelines import ViewBatch, ViewPipeline
from tests.caches import CPU, VIEWS, build_ensemble, make_cache, stored
from tests.conftest import distill_settings
from tests.distill.test_run import assert_same, dies_after_two_epochs, make_ensemble, run
from tests.files import write_classes

# Ways of choosing a batch, with the label weight that they allow.
POOLS: list[dict[str, Any]] = [
    {"pool": "all", "label_weight": 0.5},
    {"pool": "labelled", "label_weight": 0.5},
    {"pool": "unlabelled", "label_weight": 0.0},
    {"labelled_share": 0.25, "label_weight": 0.5},
]


@pytest.fixture
def few(data: Prepared, tmp_path: Path) -> Prepared:
    """The tiny data with 24 labels: 18 training images with one, 96 without."""
    settings = {"validation_fraction": 0.25, "labelled": 24}
    config = PrepareSlice.model_validate({"dataset": "tiny", "data": settings})
    made = prepare(config, tmp_path / "few")
    assert made.manifest["labels"] == {"train": 18, "validation": 6}
    assert made.count("train") == 114
    return made


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The rows of every batch that training asks for."""
    rows: list[Tensor] = []
    batches = ViewPipeline.batches

    def record(self: ViewPipeline, order: Iterable[tuple[int, Tensor]]) -> Iterator[ViewBatch]:
        for batch in batches(self, order):
            rows.append(batch.rows)
            yield batch

    monkeypatch.setattr(ViewPipeline, "batches", record)
    return rows


def test_the_label_loss_is_the_mean_over_labelled_images() -> None:
    logits = torch.randn(5, 3, requires_grad=True)
    labels = torch.tensor([2, -1, 0, -1, 1])
    known = [0, 2, 4]
    expected = -F.log_softmax(logits, dim=1)[known, [2, 0, 1]].mean()
    assert label_loss(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)
    mixed = F.one_hot(labels.clamp(min=0), 3).float() * (labels >= 0)[:, None]
    assert label_loss(logits, mixed).item() == pytest.approx(expected.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(label_loss(logits, labels), logits)
    assert (gradient[[1, 3]] == 0).all() and (gradient[known] != 0).all()


def test_a_batch_without_a_label_adds_nothing() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    for labels in (torch.full((4,), -1), torch.zeros(4, 3)):
        loss = label_loss(logits, labels)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.item() == 0 and (gradient == 0).all()


@pytest.mark.parametrize("purpose", [Purpose.TEACHER, Purpose.BASELINE])
def test_teachers_and_baseline_see_only_labelled_images_for_as_many_steps(
    purpose: Purpose, few: Prepared, seen: list[Tensor], tmp_path: Path
) -> None:
    config = SupervisedSlice.model_validate(
        {
            "name": "one",
            "network": {"arch": "tiny"},
            "views": VIEWS,
            "training": {"epochs": 2, "batch_size": 16, "lr": 0.1},
        }
    )
    work = WorkFolder(tmp_path / "work", "teacher@one", {})
    train_supervised("one", purpose, config, few, CPU, Checkpoints(work))
    assert len(seen) == 2 * (114 // 16)  # as for all training images
    assert set(torch.cat(seen).tolist()) == set(few.training_rows("labelled").tolist())


@pytest.mark.parametrize("settings", POOLS)
def test_the_student_sees_its_pool_for_as_many_steps(
    settings: dict[str, Any], few: Prepared, seen: list[Tensor], tmp_path: Path
) -> None:
    ensemble = make_ensemble(few, tmp_path)
    seen.clear()  # the caches cover all images
    run(few, ensemble, tmp_path / "w", epochs=12, batch_size=16, **settings)
    assert len(seen) == 12 * (114 // 16)
    expected = few.training_rows(settings.get("pool", "all"))
    assert set(torch.cat(seen).tolist()) == set(expected.tolist())
    if "labelled_share" in settings:
        labels = few.labels("train")
        assert all(int((labels[rows] >= 0).sum()) == 4 for rows in seen)


def test_caches_cover_all_images(few: Prepared, tmp_path: Path) -> None:
    assert stored(make_cache(few, tmp_path), "logits").shape == (3, 114, 3)


@pytest.mark.parametrize("settings", POOLS)
def test_a_float32_cache_and_online_teachers_give_the_same_bytes(
    settings: dict[str, Any], few: Prepared, tmp_path: Path
) -> None:
    cached = make_ensemble(few, tmp_path / "cached", dtype="float32")
    online = make_ensemble(few, tmp_path / "online", enabled=False)
    from_cache = run(few, cached, tmp_path / "a", **settings)
    assert_same(from_cache, run(few, online, tmp_path / "b", **settings))


MIXED = {"randaugment": 1, "erase": 0.3, "mixup": 0.4, "cutmix": 1.0}


def test_a_cache_holds_the_teachers_answers_to_mixed_images(
    few: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit: which image is mixed in, where and how much is a function of the view."""
    plain = run(few, make_ensemble(few, tmp_path / "plain", dtype="float32"), tmp_path / "p")
    for key, value in MIXED.items():
        monkeypatch.setitem(VIEWS, key, value)
    cached = make_ensemble(few, tmp_path / "cached", dtype="float32")
    online = make_ensemble(few, tmp_path / "online", enabled=False)
    settings: dict[str, Any] = {"label_weight": 0.5, "epochs": 3}
    from_cache = run(few, cached, tmp_path / "a", **settings)
    assert_same(from_cache, run(few, online, tmp_path / "b", **settings))
    assert from_cache.history[-1]["loss"] < from_cache.history[0]["loss"]
    assert from_cache.history[0]["similarity"] != plain.history[0]["similarity"]


def test_teachers_train_on_mixed_images(
    few: Prepared, seen: list[Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"epochs": 6, "batch_size": 16, "lr": 0.1}
    config = SupervisedSlice.model_validate(
        {
            "name": "one",
            "network": {"arch": "tiny"},
            "views": {**VIEWS, **MIXED},
            "training": training,
        }
    )
    work = WorkFolder(tmp_path / "work", "teacher@one", {})
    trained = train_supervised("one", Purpose.TEACHER, config, few, CPU, Checkpoints(work))
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    assert set(torch.cat(seen).tolist()) == set(few.training_rows("labelled").tolist())


@pytest.mark.parametrize("settings", [*POOLS, {"views": MIXED, "label_weight": 0.5}])
def test_an_interrupted_student_ends_with_the_same_bytes(
    settings: dict[str, Any], few: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dict(settings)
    for key, value in settings.pop("views", {}).items():
        monkeypatch.setitem(VIEWS, key, value)
    ensemble = make_ensemble(few, tmp_path)
    whole = run(few, ensemble, tmp_path / "whole", **settings)
    with dies_after_two_epochs(monkeypatch):
        run(few, ensemble, tmp_path / "parts", **settings)
    assert_same(whole, run(few, ensemble, tmp_path / "parts", **settings))


@pytest.mark.parametrize("settings", POOLS)
def test_top_k_targets_work_without_labels(
    settings: dict[str, Any], few: Prepared, tmp_path: Path
) -> None:
    history = run(few, make_ensemble(few, tmp_path, top_k=2), tmp_path / "w", **settings).history
    assert history[-1]["similarity"] < history[0]["similarity"]


@pytest.mark.parametrize("settings", POOLS)
def test_files_and_arrays_give_the_same_bytes(settings: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_classes(root / "train", {"cat": 20, "dog": 20, "eel": 20}, mode="L")
    write_classes(root / "test", {"cat": 6, "dog": 6, "eel": 6}, seed=50, mode="L")
    write_classes(root / "unlabelled", {"somewhere": 30}, seed=90, mode="L")
    trained = []
    for store, workers in (("array", 0), ("index", 2)):
        own = {"root": str(root), "image_size": 16, "store": store, "labelled": 24}
        config = PrepareSlice.model_validate(
            {"dataset": "folder", "data": {**own, "validation_fraction": 0.25}}
        )
        prepare(config, tmp_path / store / "data")
        data = open_prepared(tmp_path / store / "data", str(root), workers)
        ensemble = make_ensemble(data, tmp_path / store)
        trained.append(run(data, ensemble, tmp_path / store / "w", batch_size=8, **settings))
    assert_same(*trained)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool": "unlabelled"}, "distill.pool='unlabelled': every training image has a label"),
        ({"labelled_share": 0.5}, "distill.labelled_share=0.5: every training image has a label"),
    ],
)
def test_a_pool_without_images_is_an_error(
    settings: dict[str, Any], message: str, data: Prepared
) -> None:
    with pytest.raises(UserError) as error:
        _visits(distill_settings(**settings), data, 0)
    assert message in str(error.value)


@pytest.mark.parametrize("share", [0.9, 0.5])
def test_a_share_that_the_images_cannot_fill_is_an_error(share: float, few: Prepared) -> None:
    """There are 18 labelled and 96 unlabelled images."""
    settings = distill_settings(labelled_share=share, batch_size=64)
    known = round(share * 64)
    message = rf"a batch would have {known} labelled and {64 - known} unlabelled images, but there"
    with pytest.raises(UserError, match=message):
        _visits(settings, few, 0)


def test_a_batch_has_at_least_one_image_of_each_kind() -> None:
    assert [labelled_in_batch(share, 64) for share in (0.001, 0.25, 0.999)] == [1, 16, 63]


def test_labels_decide_nothing_where_they_are_hidden(few: Prepared, tmp_path: Path) -> None:
    """With label weight 0, the student of a pool depends on the teachers alone."""
    ensemble = build_ensemble_of(few, tmp_path)
    first = run(few, ensemble, tmp_path / "a", label_weight=0.0)
    assert first.history[-1]["similarity"] < first.history[0]["similarity"]
    assert "label" not in first.history[0]


def build_ensemble_of(data: Prepared, folder: Path) -> Any:
    make_cache(data, folder, "one", 1)
    return build_ensemble(folder, "one", labels=data.labels("validation").numpy())
