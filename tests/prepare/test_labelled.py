"""Few labels, many images: which images keep their labels, and where the others go."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meal.core.errors import UserError
from meal.data.prepared import Prepared
from meal.datasets import registry
from meal.datasets.raw import RawImages
from meal.datasets.registry import Dataset
from meal.prepare.card import contact_sheet, write_card
from meal.prepare.preparation import prepare
from meal.prepare.settings import PrepareSlice
from meal.prepare.splitting import choose_labelled
from tests.conftest import tiny_images
from tests.files import picture, write_classes

CLASSES = ("left", "middle", "right")
LABELS = np.arange(120) % 3


def digits(folder: Path, **data: Any) -> Prepared:
    return prepare(PrepareSlice.model_validate({"dataset": "digits", "data": data}), folder)


def test_labels_are_nested_stratified_and_seeded() -> None:
    labels = np.array(40 * [0] + 20 * [1] + 10 * [2])
    chosen = {n: choose_labelled(labels, n, 5, CLASSES) for n in (14, 21, 35, 70)}
    assert np.bincount(labels[chosen[14]]).tolist() == [8, 4, 2]
    assert np.bincount(labels[chosen[35]]).tolist() == [20, 10, 5]
    for fewer, more in ((14, 21), (21, 35), (35, 70)):
        assert set(chosen[fewer]) < set(chosen[more])
    assert set(choose_labelled(labels, 14, 6, CLASSES)) != set(chosen[14])
    assert np.array_equal(choose_labelled(labels, 0.2, 5, CLASSES), chosen[14])
    assert np.array_equal(choose_labelled(labels, "all", 5, CLASSES), np.arange(70))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (71, "data.labelled=71: there are only 70 training images; allowed: up to 70, or all"),
        (
            9,
            "data.labelled=9: 9 labels leave class(es) right with fewer than 2, one to train on "
            "and one for validation; allowed: from 11, or all",
        ),
        (0.001, "0 labels leave class(es) left, middle, right with fewer than 2"),
    ],
)
def test_too_many_or_too_few_labels_are_one_clear_line(wanted: float, message: str) -> None:
    labels = np.array(40 * [0] + 20 * [1] + 10 * [2])
    with pytest.raises(UserError) as error:
        choose_labelled(labels, wanted, 0, CLASSES)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_validation_images_are_labelled_ones_and_the_rest_is_the_pool(tmp_path: Path) -> None:
    data = digits(tmp_path / "few", labelled=200)
    assert data.manifest["counts"] == {"train": 878, "validation": 20, "test": 899}
    assert data.manifest["labels"] == {"train": 180, "validation": 20}
    labels = data.labels("train")
    assert int((labels >= 0).sum()) == 180 and int((labels == -1).sum()) == 698
    assert (data.labels("validation") >= 0).all()
    everything = digits(tmp_path / "all")
    assert everything.digest("test") == data.digest("test")
    assert sum(everything.manifest["labels"].values()) == 898
    known, unknown = data.training_rows("labelled"), data.training_rows("unlabelled")
    assert sorted([*known.tolist(), *unknown.tolist()]) == list(range(878))
    assert data.training_rows("all").tolist() == list(range(878))


def test_the_data_card_counts_labels_and_shows_both_kinds(tmp_path: Path) -> None:
    data = digits(tmp_path / "data", labelled=200)
    write_card(data, tmp_path / "card.json", tmp_path / "sheet.png")
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["labels"] == {"used": 200, "train": 180, "validation": 20}
    assert card["unlabelled"] == 698
    assert set(card["statistics"]) == {"labelled", "unlabelled"}
    assert np.sum(card["images_by_class"][0]) == 180
    alone = contact_sheet(digits(tmp_path / "all"))
    assert contact_sheet(data).height > alone.height


@pytest.mark.parametrize("beside", ["train", "classes"])
@pytest.mark.parametrize("store", ["array", "index"])
def test_a_folder_of_unlabelled_images_is_the_pool(
    beside: str, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "images"
    counts = {"cat": 12, "dog": 12}
    if beside == "train":
        write_classes(root / "train", counts)
        write_classes(root / "test", counts, seed=50)
    else:
        write_classes(root, {name: 2 * count for name, count in counts.items()})
    for place in ("unlabelled/2025/may", "unlabelled"):
        (root / place).mkdir(parents=True, exist_ok=True)
        for k in range(5):
            picture(900 + k + len(place)).save(root / place / f"{k}.png")
    (root / "unlabelled" / "again.jpg").write_bytes(
        next((root / ("test" if beside == "train" else "") / "cat").iterdir()).read_bytes()
    )
    settings = {"root": str(root), "image_size": 16, "store": store, "validation_fraction": 0.25}
    config = {"dataset": "folder", "data": {**settings, "test_fraction": 0.5}}
    with caplog.at_level(logging.WARNING):
        data = prepare(PrepareSlice.model_validate(config), tmp_path / "out")
    assert data.classes == 2 and data.manifest["classes"] == ["cat", "dog"]
    assert data.manifest["labels"] == {"train": 18, "validation": 6}
    assert len(data.training_rows("unlabelled")) == 11
    assert data.manifest["duplicates"]["test_in_unlabelled"] == (1 if beside == "train" else
        data.manifest["duplicates"]["test_in_train"])  # fmt: skip
    if beside == "train":
        assert "1 test in unlabelled images" in caplog.text


def test_an_empty_folder_of_unlabelled_images_is_an_error(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"cat": 4, "dog": 4})
    write_classes(tmp_path / "test", {"cat": 4, "dog": 4}, seed=50)
    (tmp_path / "unlabelled").mkdir()
    config = {"dataset": "folder", "data": {"root": str(tmp_path), "image_size": 16}}
    with pytest.raises(UserError, match=r"unlabelled holds no images; fill it or remove it"):
        prepare(PrepareSlice.model_validate(config), tmp_path / "out")


def test_the_smallest_number_of_labels_in_the_message_works() -> None:
    labels = np.array(60 * [0] + 3 * [1])
    with pytest.raises(UserError, match=r"allowed: from (\d+), or all") as error:
        choose_labelled(labels, 20, 0, CLASSES[:2])
    enough = int(str(error.value).partition("from ")[2].partition(",")[0])
    assert np.bincount(labels[choose_labelled(labels, enough, 0, CLASSES[:2])])[1] == 2
    with pytest.raises(UserError, match="fewer than 2"):
        choose_labelled(labels, enough - 1, 0, CLASSES[:2])
    with pytest.raises(UserError, match="add images of middle"):
        choose_labelled(np.array(30 * [0] + [1]), 31, 0, CLASSES[:2])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Unlabelled", r"Unlabelled: rename it to unlabelled, in lower case"),
        ("train/unlabeled", r"unlabeled cannot be a class: images without labels belong in"),
    ],
)
def test_a_pool_in_the_wrong_place_is_an_error(name: str, message: str, tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"cat": 4, "dog": 4})
    write_classes(tmp_path / "test", {"cat": 4, "dog": 4}, seed=50)
    write_classes(tmp_path / Path(name).parent, {Path(name).name: 4}, seed=90)
    config = {"dataset": "folder", "data": {"root": str(tmp_path), "image_size": 16}}
    with pytest.raises(UserError, match=message):
        prepare(PrepareSlice.model_validate(config), tmp_path / "out")


def test_folders_beside_the_splits_and_a_broken_pool_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_classes(tmp_path / "train", {"cat": 4, "dog": 4})
    write_classes(tmp_path / "test", {"cat": 4, "dog": 4}, seed=50)
    (tmp_path / "extra").mkdir()
    config: dict[str, Any] = {
        "dataset": "folder",
        "data": {"root": str(tmp_path), "image_size": 16, "skip_broken": True},
    }
    config["data"]["validation_fraction"] = 0.25
    prepare(PrepareSlice.model_validate(config), tmp_path / "out")
    assert f"{tmp_path / 'extra'} is ignored" in caplog.text
    (tmp_path / "unlabelled").mkdir()
    (tmp_path / "unlabelled" / "bad.jpg").write_bytes(b"no")
    with pytest.raises(UserError, match="no intact image is left in unlabelled"):
        prepare(PrepareSlice.model_validate(config), tmp_path / "out")


@pytest.mark.parametrize(("brighter", "warns"), [(0, False), (90, True)])
def test_a_pool_that_looks_different_is_a_warning(
    brighter: int,
    warns: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def read(root: Path | None) -> RawImages:
        pool = tiny_images(60, 2)[0] // 2 + brighter
        twin = tiny_images(120, 0)[0] // 2
        return RawImages(
            twin, tiny_images(120, 0)[1], *tiny_images(30, 1), CLASSES, pool.astype(np.uint8)
        )

    monkeypatch.setitem(
        registry.DATASETS, "pooled", Dataset("pooled", read, flip=False, unlabelled=True)
    )
    data = prepare(PrepareSlice.model_validate({"dataset": "pooled", "data": {}}), tmp_path / "d")
    assert ("the unlabelled images differ from the labelled ones" in caplog.text) == warns
    assert data.manifest["labels"] == {"train": 108, "validation": 12}
    assert data.count("train") == 168
