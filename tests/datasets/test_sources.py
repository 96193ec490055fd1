from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meal.core.errors import UserError
from meal.data.prepared import Prepared, open_prepared
from meal.datasets.raw import RawImages
from meal.datasets.registry import DATASETS
from meal.prepare.preparation import prepare
from meal.prepare.settings import PrepareSlice
from tests.files import held_out


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an array of bytes in the IDX format, compressed if the name ends in .gz."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    opener = gzip.open if path.suffix == ".gz" else open
    path.parent.mkdir(parents=True, exist_ok=True)
    with opener(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


def write_fashion_mnist(folder: Path, suffix: str, train: int = 60, test: int = 20) -> np.ndarray:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (train, 28, 28))
    write_idx(folder / f"train-images-idx3-ubyte{suffix}", images)
    write_idx(folder / f"train-labels-idx1-ubyte{suffix}", np.arange(train) % 10)
    write_idx(
        folder / f"t10k-images-idx3-ubyte{suffix}", generator.integers(0, 256, (test, 28, 28))
    )
    write_idx(folder / f"t10k-labels-idx1-ubyte{suffix}", np.arange(test) % 10)
    return images


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine without a network."""
    from torchvision.datasets import FashionMNIST

    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])


def read(name: str, root: Path | None = None) -> RawImages:
    raw = DATASETS[name].read(root)
    assert isinstance(raw, RawImages)
    return raw


def test_half_of_the_digits_are_the_test_set_which_only_its_own_seed_changes(
    tmp_path: Path,
) -> None:
    def digits(name: str, **data: Any) -> Prepared:
        config = PrepareSlice.model_validate({"dataset": "digits", "data": data})
        return prepare(config, tmp_path / name)

    assert read("digits").train_images.shape == (1797, 8, 8, 1)
    assert read("digits").train_images.max() == 255
    first, other = digits("a"), digits("b", split_seed=1, labelled=200)
    assert first.count("test") == 899
    assert first.digest("test") == other.digest("test") != digits("c", test_seed=1).digest("test")
    assert set(np.bincount(first.labels("test"))) <= {87, 88, 89, 90, 91, 92}
    assert digits("d", test_fraction=0.2).count("test") == 360


def test_fashion_mnist_from_a_folder_of_gz_files(tmp_path: Path) -> None:
    images = write_fashion_mnist(tmp_path, ".gz")
    raw = read("fashion_mnist", tmp_path)
    assert np.array_equal(raw.train_images[..., 0], images)
    assert held_out(raw)[1].tolist() == [k % 10 for k in range(20)]
    assert raw.classes[9] == "Ankle boot"


def test_files_that_are_not_the_published_ones_give_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """MNIST's files have the same names and format."""
    write_fashion_mnist(tmp_path, ".gz")
    read("fashion_mnist", tmp_path)
    assert f"train-labels-idx1-ubyte in {tmp_path} differs from the one at https" in caplog.text


def test_fashion_mnist_from_torchvisions_own_folder(tmp_path: Path) -> None:
    images = write_fashion_mnist(tmp_path / "FashionMNIST" / "raw", "")
    raw = read("fashion_mnist", tmp_path)
    assert np.array_equal(raw.train_images[..., 0], images)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.root=.*train-images-idx3-ubyte.gz"):
        read("fashion_mnist", tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, ".gz")
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"lacks t10k-labels-idx1-ubyte.gz"):
        read("fashion_mnist", tmp_path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz cannot be unpacked"):
        read("fashion_mnist", tmp_path)


def test_a_file_truncated_before_compression_is_an_error(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:5000]))
    with pytest.raises(UserError, match=r"Fashion-MNIST in .* cannot be read"):
        read("fashion_mnist", tmp_path)


def test_without_a_network_the_error_says_which_files_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEAL_DATA", str(tmp_path))
    page = "https://github.com/zalandoresearch/fashion-mnist"
    with pytest.raises(UserError, match=rf"could not be downloaded .*{page}.*data.root") as error:
        DATASETS["fashion_mnist"].read(None)
    assert "train-images-idx3-ubyte.gz" in str(error.value) and str(tmp_path) in str(error.value)


def fashion_slice(root: Path, **data: object) -> PrepareSlice:
    return PrepareSlice.model_validate(
        {"dataset": "fashion_mnist", "data": {"root": str(root), **data}}
    )


def test_the_validation_split_is_stratified_and_follows_its_seed(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "files", ".gz", train=200)
    splits = []
    for seed in (0, 0, 1):
        config = fashion_slice(tmp_path / "files", split_seed=seed, validation_fraction=0.25)
        splits.append(prepare(config, tmp_path / "data"))
    first, again, other = (split.fingerprint for split in splits)
    assert first == again != other
    assert splits[-1].labels("validation").bincount().tolist() == [5] * 10


def test_images_are_resized_to_image_size(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "files", ".gz")
    config = fashion_slice(tmp_path / "files", image_size=32, validation_fraction=0.5)
    prepared = prepare(config, tmp_path / "data")
    assert prepared.shape == (1, 32, 32)
    assert len(prepared.images("test")) == 20 and prepared.images("test").side == 32


def test_normalisation_comes_from_the_training_split(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "files", ".gz")
    prepared = prepare(
        fashion_slice(tmp_path / "files", validation_fraction=0.5), tmp_path / "data"
    )
    images = prepared.images("train").whole
    assert images is not None
    pixels = images.double() / 255
    assert prepared.mean == [pytest.approx(float(pixels.mean()), abs=1e-6)]
    assert prepared.std == [pytest.approx(float(pixels.std(correction=0)), abs=1e-6)]


def test_too_few_images_of_a_class_are_an_error(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "files", ".gz", train=10)
    with pytest.raises(
        UserError, match=r"validation_fraction=0.1: class\(es\) T-shirt.* fewer than 2"
    ):
        prepare(fashion_slice(tmp_path / "files"), tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy", "manifest.json"])
def test_damaged_prepared_data_is_never_used(name: str, tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "files", ".gz")
    prepare(fashion_slice(tmp_path / "files", validation_fraction=0.5), tmp_path / "data")
    path = tmp_path / "data" / name
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="dvc repro prepare"):
        opened = open_prepared(tmp_path / "data")
        opened.images("train")
        opened.labels("test")
