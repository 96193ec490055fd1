"""Folders of image files through `prepare`: layouts, both stores, and every kind of bad input."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from meal.core.errors import UserError
from meal.core.seeds import Purpose
from meal.core.work import WorkFolder
from meal.data.prepared import SPLITS, Prepared, open_prepared
from meal.prepare.card import describe
from meal.prepare.preparation import prepare
from meal.prepare.settings import PrepareSlice
from meal.prepare.splitting import split_by_class
from meal.supervised.run import train_supervised
from meal.supervised.settings import SupervisedSlice
from meal.training.checkpoints import Checkpoints
from meal.views.families import view_family
from meal.views.pipelines import PlainPipeline, ViewPipeline
from meal.views.settings import ViewsSlice
from tests.files import as_bytes, md5, picture, write_classes

CPU = torch.device("cpu")
TWO = {"cat": 10, "dog": 8}


def prepared(
    root: Path, out: Path, dataset: str = "folder", workers: int = 0, **data: Any
) -> Prepared:
    settings = {"root": str(root), "image_size": 16, "validation_fraction": 0.25, **data}
    config = PrepareSlice.model_validate({"dataset": dataset, "data": settings})
    return prepare(config, out, workers)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes, with training and test images."""
    write_classes(tmp_path / "images" / "train", TWO)
    write_classes(tmp_path / "images" / "test", {"cat": 3, "dog": 3}, seed=50_000)
    return tmp_path / "images"


def first(root: Path, split: str = "train") -> Path:
    return sorted((root / split / "cat").iterdir())[0]


# Layouts


def test_train_and_test_folders(root: Path, tmp_path: Path) -> None:
    data = prepared(root, tmp_path / "out")
    assert data.manifest["classes"] == ["cat", "dog"]
    assert data.manifest["counts"] == {"train": 13, "validation": 5, "test": 6}
    assert data.shape == (3, 16, 16)
    assert data.labels("test").tolist() == [0, 0, 0, 1, 1, 1]


def test_class_folders_alone_give_a_test_set_that_no_seed_changes(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", TWO)
    first = prepared(tmp_path / "images", tmp_path / "a", split_seed=0, test_fraction=0.25)
    other = prepared(tmp_path / "images", tmp_path / "b", split_seed=1, test_fraction=0.25)
    assert first.manifest["counts"] == {"train": 9, "validation": 4, "test": 5}
    assert torch.equal(first.images("test").whole, other.images("test").whole)  # type: ignore[arg-type]
    assert not torch.equal(first.images("train").whole, other.images("train").whole)  # type: ignore[arg-type]


@pytest.mark.parametrize("beside", [True, False])
def test_a_val_folder_is_the_validation_split_or_the_test_split(
    beside: bool, root: Path, tmp_path: Path
) -> None:
    write_classes(root / "val", {"cat": 2, "dog": 2}, seed=90_000)
    if not beside:
        shutil.rmtree(root / "test")
    counts = prepared(root, tmp_path / "out").manifest["counts"]
    expected = {"train": 18, "validation": 4, "test": 6} if beside else {
        "train": 13, "validation": 5, "test": 4
    }  # fmt: skip
    assert counts == expected


def test_imagenet_from_its_folders(tmp_path: Path) -> None:
    wnids = {"n01440764": 6, "n01443537": 6}
    write_classes(tmp_path / "train", wnids, ending="JPEG")
    write_classes(tmp_path / "val", dict.fromkeys(wnids, 2), seed=7, ending="JPEG")
    data = prepared(tmp_path, tmp_path / "out", "imagenet", validation_fraction=0.5)
    assert data.manifest["classes"] == list(wnids)
    assert data.manifest["counts"] == {"train": 6, "validation": 6, "test": 4}


def test_imagenet_from_its_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published tars, in miniature: a tar of tars, the devkit's .mat and ground truth."""
    from scipy.io import savemat
    from torchvision.datasets import imagenet as module

    wnids, place, made = ["n01440764", "n01443537"], tmp_path / "root", tmp_path / "made"
    place.mkdir()
    write_classes(made / "train", dict.fromkeys(wnids, 6), ending="JPEG")
    with tarfile.open(place / "ILSVRC2012_img_train.tar", "w") as outer:
        for wnid in wnids:
            with tarfile.open(made / f"{wnid}.tar", "w") as inner:
                for path in sorted((made / "train" / wnid).iterdir()):
                    inner.add(path, f"{wnid}_{path.name}")
            outer.add(made / f"{wnid}.tar", f"{wnid}.tar")
    with tarfile.open(place / "ILSVRC2012_img_val.tar", "w") as archive:
        for k in range(4):
            name = f"ILSVRC2012_val_{k + 1:08d}.JPEG"
            picture(100 + k).save(made / name)
            archive.add(made / name, name)
    kit = made / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"),
             ("num_children", "O")]  # fmt: skip
    synsets = np.array([(k + 1, w, f"fish {k}", "", 0) for k, w in enumerate(wnids)], dtype=kinds)
    savemat(kit / "meta.mat", {"synsets": synsets})
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n1\n2\n1\n")
    with tarfile.open(place / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(kit.parent, kit.parent.name)
    archives = {
        split: (name, md5(place / name)) for split, (name, _) in module.ARCHIVE_META.items()
    }
    monkeypatch.setattr(module, "ARCHIVE_META", archives)
    data = prepared(place, tmp_path / "out", "imagenet", validation_fraction=0.5)
    assert data.manifest["counts"] == {"train": 6, "validation": 6, "test": 4}
    assert data.labels("test").tolist() == [0, 0, 1, 1]
    assert sorted(path.name for path in (place / "val").iterdir()) == wnids
    (place / "ILSVRC2012_img_val.tar").unlink()  # the unpacked files are enough
    assert prepared(place, tmp_path / "out", "imagenet").manifest["counts"]["test"] == 4


def test_missing_imagenet_is_an_error_that_says_which_files_belong_where(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ILSVRC2012_img_train\.tar.*https://image-net\.org"):
        prepared(tmp_path, tmp_path / "out", "imagenet")


# Both stores


def stored(root: Path, out: Path, store: str, **data: Any) -> Prepared:
    made = prepared(root, out / store, store=store, **data)
    assert made.manifest["store"] == store
    return made


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("crop", "sizes", "more"),
    [
        ("padded", {"image_size": 16}, {}),
        ("padded", {"image_size": 16}, {"randaugment": 1, "mixup": 0.5}),
        ("resized", {"image_size": 16}, {}),
        ("resized", {"image_size": 16, "source_size": 24}, {"erase": 0.5, "cutmix": 1.0}),
    ],
)
def test_both_stores_give_identical_pixels(
    crop: str, more: dict[str, Any], sizes: dict[str, int], workers: int, root: Path, tmp_path: Path
) -> None:
    array = stored(root, tmp_path, "array", **sizes)
    stored(root, tmp_path, "index", **sizes)
    index = open_prepared(tmp_path / "index", str(root), workers)
    for key in ("classes", "counts", "shape", "mean", "std", "duplicates", "side", "sizes"):
        assert array.manifest[key] == index.manifest[key], key
    views = ViewsSlice.model_validate(
        {"seed": 3, "crop": crop, "crop_padding": 2, "flip": True, "size": 50, **more}
    )
    for split in SPLITS:
        assert torch.equal(array.labels(split), index.labels(split))
        plain = [PlainPipeline.of(data, split, CPU) for data in (array, index)]
        count = len(plain[0])
        assert torch.equal(plain[0].plain(0, count), plain[1].plain(0, count))
        pipelines = [ViewPipeline(each, view_family(views)) for each in plain]
        order = list(torch.randperm(count).split(4))
        for view in (0, 7):
            read = [list(each.batches((view, rows) for rows in order)) for each in pipelines]
            for (found, rows, pixels, _), (_, same_rows, same, _) in zip(*read, strict=True):
                assert found == view and torch.equal(rows, same_rows) and torch.equal(pixels, same)
                assert pixels.shape[1:] == (3, 16, 16)
                assert torch.equal(pipelines[1].view(rows, view), pixels)


def test_the_plain_image_is_the_centre_of_a_larger_source(root: Path, tmp_path: Path) -> None:
    data = prepared(root, tmp_path / "out", image_size=16, source_size=24)
    whole = data.images("test").whole
    assert whole is not None and whole.shape[1:] == (24, 24, 3)
    pipeline = PlainPipeline.of(data, "test", CPU)
    pipeline.normalise = lambda pixels: pixels  # type: ignore[method-assign]
    assert torch.equal(pipeline.plain(0, 6), whole[:, 4:20, 4:20])


def test_the_store_is_chosen_by_size_and_printed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepared(root, tmp_path / "a").manifest["store"] == "array"
    assert "kept as one array" in capsys.readouterr().out
    monkeypatch.setattr("meal.prepare.images.MOST_IN_MEMORY", 24 * 16 * 16 * 3 - 1)
    assert prepared(root, tmp_path / "b").manifest["store"] == "index"
    assert "an index of files" in capsys.readouterr().out


def test_the_same_files_give_the_same_bytes_with_any_number_of_workers(
    root: Path, tmp_path: Path
) -> None:
    made = [
        prepared(root, tmp_path / str(workers), store="index", workers=workers).fingerprint
        for workers in (0, 3)
    ]
    assert made[0] == made[1]
    moved = root.rename(tmp_path / "moved")
    assert prepared(moved, tmp_path / "again", store="index").fingerprint == made[0]


# Bad input: the rows of the table in docs/data.md


BROKEN = {
    "truncated": (lambda content: content[: len(content) // 2], "train/cat/000.jpg: .*"),
    "no image": (lambda content: b"hello", r"train/cat/000.jpg: not an image in a known format"),
    "empty": (lambda content: b"", r"train/cat/000.jpg: not an image in a known format"),
}


@pytest.mark.parametrize("store", ["array", "index"])
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_stop_prepare(kind: str, store: str, root: Path, tmp_path: Path) -> None:
    damage, message = BROKEN[kind]
    first(root).write_bytes(damage(first(root).read_bytes()))
    with pytest.raises(UserError, match=message):
        prepared(root, tmp_path / "out", store=store)
    assert not (tmp_path / "out").exists()


def test_all_broken_files_are_listed_at_once(root: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        first(root, split).write_bytes(b"broken")
    (root / "train" / "dog" / "away.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="3 of 25 files are broken") as error:
        prepared(root, tmp_path / "out", workers=2)
    lines = str(error.value).splitlines()
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "train/cat/000.jpg", "train/dog/away.png", "test/cat/000.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize("store", ["array", "index"])
def test_skip_broken_skips_broken_files_and_records_them(
    store: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first(root).write_bytes(b"broken")
    data = prepared(root, tmp_path / "out", store=store, skip_broken=True)
    assert sum(data.manifest["counts"].values()) == 23
    (skipped,) = data.manifest["skipped"]
    assert skipped["path"] == "train/cat/000.jpg" and "not an image" in skipped["reason"]
    assert "skipped: train/cat/000.jpg" in capsys.readouterr().out
    assert describe(data)["skipped"] == 1
    whole = PlainPipeline.of(data, "train", CPU).plain(0, data.manifest["counts"]["train"])
    assert whole.isfinite().all()


def test_a_training_class_with_only_broken_files_is_an_error(root: Path, tmp_path: Path) -> None:
    for path in (root / "train" / "dog").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"left in train for class\(es\) dog"):
        prepared(root, tmp_path / "out", skip_broken=True)


def test_a_test_class_with_only_broken_files_is_a_warning_and_a_whole_split_an_error(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (root / "test" / "dog").iterdir():
        path.write_bytes(b"broken")
    data = prepared(root, tmp_path / "out", skip_broken=True)
    assert data.manifest["counts"]["test"] == 3
    assert "no intact image is left in test for class(es) dog" in caplog.text
    for path in (root / "test" / "cat").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"left in test for class\(es\) cat, dog"):
        prepared(root, tmp_path / "again", skip_broken=True)


def test_classes_too_small_to_be_split_are_named(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", {**TWO, "eel": 1})
    with pytest.raises(UserError, match=r"data\.test_fraction=0\.2: class\(es\) eel have fewer"):
        prepared(tmp_path / "images", tmp_path / "out")
    write_classes(tmp_path / "many", {f"class{k}": 3 for k in range(20)})
    with pytest.raises(
        UserError,
        match=r"20 classes cannot include every class on both sides; allowed: 0\.334 to 0\.666",
    ):
        prepared(tmp_path / "many", tmp_path / "out")
    labels, names = np.repeat(np.arange(20), 3), [str(k) for k in range(20)]
    for fraction in (0.334, 0.666):  # the bounds in the message are allowed
        split_by_class(labels, "test_fraction", fraction, 0, names)


def test_a_class_that_a_split_misses_gives_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    labels = np.repeat([0, 1, 2], [500, 498, 2])
    split_by_class(labels, "test_fraction", 0.1, 0, ["cat", "dog", "eel"])
    assert "data.test_fraction=0.1 takes no image of class(es) eel" in caplog.text


@pytest.mark.parametrize("target", [".", "..", "../../test"])
def test_a_symlink_to_a_parent_is_an_error(target: str, root: Path, tmp_path: Path) -> None:
    """Two of them in one folder would give more paths than can ever be walked."""
    for name in ("one", "two"):
        (root / "train" / "cat" / name).symlink_to(target)
    with pytest.raises(UserError, match="leads to a folder whose images have already been read"):
        prepared(root, tmp_path / "out")


def test_a_symlink_to_a_folder_elsewhere_is_followed(root: Path, tmp_path: Path) -> None:
    write_classes(tmp_path / "more", {"cats": 4}, seed=70_000)
    (root / "train" / "cat" / "more").symlink_to(tmp_path / "more" / "cats")
    assert sum(prepared(root, tmp_path / "out").manifest["counts"].values()) == 28


@pytest.mark.parametrize("place", ["test", "train/eel", "train/cat/more"])
def test_a_dangling_symlink_is_named(place: str, root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "test")
    (root / place).symlink_to(tmp_path / "unmounted")
    with pytest.raises(UserError, match=rf"{place} is a dangling symlink"):
        prepared(root, tmp_path / "out")


def test_a_class_with_an_unprintable_name_is_an_error(root: Path, tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"two\nlines"):
        folder = os.fsencode(root / "train") + b"/" + name
        os.mkdir(folder)  # noqa: PTH102 - bytes
        with pytest.raises(UserError, match=r"the folder '.*' cannot name a class"):
            prepared(root, tmp_path / "out")
        os.rmdir(folder)  # noqa: PTH106 - bytes


def test_a_pipe_named_like_an_image_is_broken(root: Path, tmp_path: Path) -> None:
    os.mkfifo(root / "train" / "cat" / "pipe\n.png")
    with pytest.raises(UserError, match=r"\ntrain/cat/pipe\\n\.png: not a regular file$"):
        prepared(root, tmp_path / "out")


def test_a_broken_first_image_hides_no_other_fault(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", TWO, size=(20, 20))
    for name in ("cat/000.jpg", "dog/010.jpg"):
        next(iter(sorted((tmp_path / "images" / name).parent.iterdir()))).write_bytes(b"broken")
    with pytest.raises(UserError, match="2 of 18 files are broken"):
        prepared(tmp_path / "images", tmp_path / "out", image_size=None)
    data = prepared(tmp_path / "images", tmp_path / "out", image_size=None, skip_broken=True)
    assert data.shape == (3, 20, 20)


@pytest.mark.parametrize("side", [8, 1030])
def test_images_of_an_unsupported_size_need_image_size(side: int, tmp_path: Path) -> None:
    write_classes(tmp_path / "images", TWO, size=(side, side))
    with pytest.raises(UserError, match=rf"{side}x{side} pixels.* 16 to 1024; set data"):
        prepared(tmp_path / "images", tmp_path / "out", image_size=None)


def test_pixels_that_do_not_fit_in_memory_are_refused_before_they_are_read(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meal.prepare.images.total_memory", lambda device: 10_000)
    with pytest.raises(UserError, match=r"data\.store='array': .* do not fit .*; allowed: index"):
        prepared(root, tmp_path / "out", store="array")


def test_a_relative_root_is_relative_to_the_project_even_in_experiments(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC runs queued experiments in folders below the project's .dvc."""
    project = tmp_path / "project"
    experiment = project / ".dvc" / "tmp" / "exps" / "tmp123"
    experiment.mkdir(parents=True)
    for folder in (project, experiment):
        monkeypatch.chdir(folder)
        assert prepared(Path("../images"), tmp_path / "out").manifest["counts"]["train"] == 13


def test_a_root_in_the_home_of_an_unknown_user_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root='~nobody-here/x': unknown user"):
        prepared(Path("~nobody-here/x"), tmp_path / "out")


def test_an_empty_class_is_an_error(root: Path, tmp_path: Path) -> None:
    (root / "train" / "eel").mkdir()
    (root / "train" / "eel" / "notes.txt").write_text("soon")
    with pytest.raises(UserError, match=r"train/eel holds no images"):
        prepared(root, tmp_path / "out")


def test_one_class_is_an_error(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "train" / "dog")
    with pytest.raises(UserError, match=r"holds 1 class\(es\) \(cat\): at least two"):
        prepared(root, tmp_path / "out")


@pytest.mark.parametrize("name", ["test", "val", "Validation", "training"])
def test_a_split_without_train_is_an_error_and_no_class(name: str, tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_classes(root, TWO)
    write_classes(root / name, TWO, seed=50_000)
    with pytest.raises(UserError, match=rf"holds {name}/ but no train/; allowed: train/ and test/"):
        prepared(root, tmp_path / "out")


def test_a_test_class_that_training_lacks_is_an_error(root: Path, tmp_path: Path) -> None:
    write_classes(root / "test", {"eel": 1}, seed=1)
    with pytest.raises(UserError, match=r"test holds classes that .*train lacks: eel"):
        prepared(root, tmp_path / "out")


def test_a_training_class_that_the_test_split_lacks_is_a_warning(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(root / "test" / "dog")
    assert prepared(root, tmp_path / "out").manifest["counts"]["test"] == 3
    assert "test holds no images of class dog" in caplog.text


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root: .*nowhere is not a folder"):
        prepared(tmp_path / "nowhere", tmp_path / "out")


def test_an_unreadable_folder_is_named() -> None:
    """This includes a nested one, which torchvision would skip silently."""
    script = """
import os, sys
from pathlib import Path
from meal.core.errors import UserError
from meal.datasets.registry import DATASETS
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    DATASETS["folder"].read(Path(sys.argv[1]))
except UserError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        write_classes(Path(name), TWO)
        for closed in (Path(name) / "cat", Path(name) / "dog" / "more"):
            closed.mkdir(exist_ok=True)
            closed.chmod(0)
            result = subprocess.run(
                [sys.executable, "-c", script, name], capture_output=True, text=True
            )
            assert f"{closed} cannot be read: Permission denied" in result.stdout, result
            closed.chmod(0o755)


def test_images_of_mixed_sizes_need_image_size(root: Path, tmp_path: Path) -> None:
    picture(1, (32, 32)).save(first(root).with_suffix(".png"))
    assert prepared(root, tmp_path / "out").shape == (3, 16, 16)
    with pytest.raises(UserError, match=r"40x32 pixels.*set data\.image_size"):
        prepared(root, tmp_path / "none", image_size=None)


def test_images_of_one_square_size_keep_it_and_several_sizes_are_an_error(tmp_path: Path) -> None:
    write_classes(tmp_path / "images", TWO, size=(20, 20))
    assert prepared(tmp_path / "images", tmp_path / "out", image_size=None).shape == (3, 20, 20)
    picture(5, (24, 24)).save(tmp_path / "images" / "dog" / "other.jpg")
    with pytest.raises(UserError, match=r"2 different sizes, from 20x20 to 24x24"):
        prepared(tmp_path / "images", tmp_path / "again", image_size=None)


def test_mixed_modes_become_colour_and_grey_alone_stays_grey(root: Path, tmp_path: Path) -> None:
    for index, mode in enumerate(("L", "RGBA", "P", "LA", "1")):
        picture(index, mode=mode).save(root / "train" / "cat" / f"{mode}.png")
    (root / "train" / "cat" / "cmyk.jpg").write_bytes(as_bytes(picture(9, mode="CMYK"), "JPEG"))
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(root / "train" / "cat" / "16.png")
    data = prepared(root, tmp_path / "out")
    assert data.shape == (3, 16, 16) and sum(data.manifest["counts"].values()) == 31
    write_classes(tmp_path / "grey", TWO, mode="L")
    for store in ("array", "index"):
        grey = prepared(tmp_path / "grey", tmp_path / store, store=store)
        assert grey.shape == (1, 16, 16) and len(grey.manifest["mean"]) == 1
        assert PlainPipeline.of(grey, "test", CPU).plain(0, 2).shape == (2, 1, 16, 16)


def test_a_decompression_bomb_is_refused(root: Path, tmp_path: Path) -> None:
    from tests.data.test_decoding import bomb

    (root / "train" / "cat" / "bomb.png").write_bytes(bomb())
    with pytest.raises(UserError, match=r"train/cat/bomb\.png: larger than Pillow's limit"):
        prepared(root, tmp_path / "out")


@pytest.mark.parametrize("store", ["array", "index"])
def test_equal_pixels_are_found_in_any_file_format(store: str, root: Path, tmp_path: Path) -> None:
    for path in sorted((root / "train" / "cat").iterdir()):
        Image.open(path).save(root / "test" / "cat" / f"{path.stem}x.png")
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    duplicates = prepared(root, tmp_path / "out", store=store).manifest["duplicates"]
    assert duplicates["test_in_train"] + duplicates["test_in_validation"] == 10


@pytest.mark.parametrize("store", ["array", "index"])
def test_images_in_two_splits_are_counted_and_give_a_warning(
    store: str, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in sorted((root / "train" / "cat").iterdir()):
        shutil.copy(path, root / "test" / "cat" / f"copy{path.name}")
    duplicates = prepared(root, tmp_path / "out", store=store).manifest["duplicates"]
    assert duplicates["test_in_train"] + duplicates["test_in_validation"] == len(
        list((root / "train" / "cat").iterdir())
    )
    assert f"{duplicates['test_in_train']} test in train images" in caplog.text


@pytest.mark.parametrize("change", ["content", "removed", "broken"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_changed_since_prepare_stops_the_reader(
    change: str, workers: int, root: Path, tmp_path: Path
) -> None:
    prepared(root, tmp_path / "out", store="index")
    data = open_prepared(tmp_path / "out", str(root), workers)
    path = first(root, "test")
    if change == "content":
        picture(77).save(path)
    elif change == "broken":
        path.write_bytes(b"broken")
    else:
        path.unlink()
    match = rf"{path}.*(has changed|cannot be read).*dvc repro --single-item --force prepare"
    with pytest.raises(UserError, match=match) as error:
        list(PlainPipeline.of(data, "test", CPU).batches([torch.arange(6)]))
    assert "\n" not in str(error.value)


def test_other_files_are_ignored_and_counted(root: Path, tmp_path: Path) -> None:
    for name in ("notes.txt", ".hidden.jpg", "._000.jpg"):
        (root / "train" / "cat" / name).write_bytes(b"nothing")
    picture(6).save(root / "train" / "beside.png")
    (root / "train" / "cat" / ".#000.jpg").symlink_to("an editor's lock, a dangling symlink")
    (root / "train" / ".git").mkdir()
    data = prepared(root, tmp_path / "out")
    assert data.manifest["ignored"] == 5
    assert data.manifest["classes"] == ["cat", "dog"]


def test_images_in_sub_folders_of_a_class_belong_to_it(root: Path, tmp_path: Path) -> None:
    (root / "train" / "cat" / "indoors").mkdir()
    picture(8).save(root / "train" / "cat" / "indoors" / "Caf\u00e9 1.JPG")
    assert sum(prepared(root, tmp_path / "out").manifest["counts"].values()) == 25


def test_training_gives_the_same_bits_with_any_store_and_number_of_workers(
    root: Path, tmp_path: Path
) -> None:
    prepared(root, tmp_path / "array", store="array")
    prepared(root, tmp_path / "index", store="index")
    states = []
    for name, workers in (("array", 0), ("index", 0), ("index", 1), ("index", 2)):
        data = open_prepared(tmp_path / name, str(root), workers)
        config = SupervisedSlice.model_validate(
            {
                "name": "one",
                "network": {"arch": "tiny"},
                "views": {
                    "seed": 0,
                    "crop": "resized",
                    "crop_padding": 0,
                    "flip": True,
                    "size": None,
                },
                "training": {"epochs": 2, "batch_size": 4, "lr": 0.05},
            }
        )
        work = WorkFolder(tmp_path / "work", f"{name}-{workers}", {})
        arguments = ("one", Purpose.TEACHER, config, data, CPU, Checkpoints(work))
        states.append(train_supervised(*arguments).state)
    for state in states[1:]:
        assert all(torch.equal(state[key], states[0][key]) for key in states[0])
