"""Where images come from. A new dataset is one reader and one entry in `SOURCES`.

Readers import their library when called: `configure` needs the table alone.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from meal.files import user_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class RawImages:
    """A dataset as its source gives it: uint8 images `(N, H, W, C)` and labels `(N,)`."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """How a dataset is read, and what is known of it beforehand.

    Attributes:
        title: its name in reports.
        read: from a folder (`data.root`, or None) to its images.
        flip: whether a mirrored image still shows its class (`views.flip: auto`).
        classes: how many there are, to check parameters before anything runs.
        image_size: pixels to which images are resized by default; None keeps them.
        note: what a reader of its results must know.
    """

    title: str
    read: Callable[[Path | None], RawImages]
    flip: bool
    classes: int | None = None
    image_size: int | None = None
    note: str = ""


def _digits(root: Path | None) -> RawImages:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, 360 of them kept for the test."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    # Grey levels from 0 to 16 to the full range of a byte.
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    # The library names no test set. This split is fixed: `data.split_seed` must not move it.
    train, test = train_test_split(
        np.arange(len(images)), test_size=360, stratify=bunch.target, random_state=0
    )
    labels = bunch.target.astype(np.int64)
    classes = tuple(str(name) for name in bunch.target_names)
    return RawImages(images[train], labels[train], images[test], labels[test], classes)


def _fashion_mnist(root: Path | None) -> RawImages:
    """Fashion-MNIST by torchvision: its own folder, a download, or a folder of IDX `.gz` files."""
    from torchvision.datasets import FashionMNIST

    names = [url.rsplit("/", 1)[-1] for url, _ in FashionMNIST.resources]
    if root is not None and any((root / name).exists() for name in names):
        with tempfile.TemporaryDirectory() as temporary:
            _unpack(root, names, Path(temporary) / "FashionMNIST" / "raw")
            return _from_torchvision(FashionMNIST, Path(temporary), "Fashion-MNIST")
    folder = root or user_folder()
    raw = folder / "FashionMNIST" / "raw"
    if not all((raw / name.removesuffix(".gz")).exists() for name in names):
        if root is not None:
            raise ValueError(
                f"data.root={str(root)!r} holds neither FashionMNIST/raw (torchvision's layout), "
                f"whole, nor {', '.join(names)}"
            )
        _download(FashionMNIST, folder, names)
    return _from_torchvision(FashionMNIST, folder, "Fashion-MNIST")


def _unpack(root: Path, names: list[str], target: Path) -> None:
    """Unpack the `.gz` files `names` of `root` into `target`."""
    missing = [name for name in names if not (root / name).exists()]
    if missing:
        raise ValueError(f"data.root={str(root)!r} lacks {', '.join(missing)}")
    target.mkdir(parents=True)
    for name in names:
        try:
            with gzip.open(root / name) as packed, (target / name[:-3]).open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{root / name} cannot be unpacked: {error}") from None


def _download(dataset: Callable[..., object], folder: Path, names: list[str]) -> None:
    """Let torchvision download into `folder`; a failure says what to put where."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"downloading to {folder} (MEAL_DATA changes the folder)", flush=True)
    try:
        dataset(str(folder), download=True)
    except (RuntimeError, OSError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(
            f"the dataset could not be downloaded ({first}): put {', '.join(names)} into a folder "
            "and name it as data.root"
        ) from None


def _from_torchvision(dataset: Callable[..., object], root: Path, title: str) -> RawImages:
    """The arrays of a torchvision dataset of the MNIST family."""
    import numpy as np

    try:
        train, test = dataset(str(root), train=True), dataset(str(root), train=False)
    except (RuntimeError, AssertionError, ValueError, TypeError, KeyError, OSError) as error:
        raise ValueError(f"{title} in {root} cannot be read: {error}") from None
    arrays: list[NDArray[np.int64]] = []
    for split in (train, test):
        images, labels = split.data.numpy()[..., None], split.targets.numpy()  # type: ignore[attr-defined]
        if images.ndim != 4 or len(images) != len(labels) or len(images) == 0:
            raise ValueError(
                f"{title} in {root} holds {images.shape[:-1]} images and {len(labels)} labels"
            )
        arrays += [images, labels.astype(np.int64)]
    return RawImages(
        arrays[0].astype(np.uint8),
        arrays[1],
        arrays[2].astype(np.uint8),
        arrays[3],
        tuple(train.classes),  # type: ignore[attr-defined]
    )


SOURCES: dict[str, Source] = {
    "digits": Source(
        "scikit-learn digits",
        _digits,
        flip=False,
        classes=10,
        image_size=16,
        note="a smoke run: 360 test images, one of which is 0.28 points",
    ),
    "fashion_mnist": Source("Fashion-MNIST", _fashion_mnist, flip=True, classes=10),
}
