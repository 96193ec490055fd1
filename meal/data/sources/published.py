"""Published datasets, read, downloaded and verified by torchvision's own classes.

What is kept on disk is what is published: archives with a checksum. They are unpacked into a
temporary folder when `prepare` reads them, so that no half-unpacked folder is ever taken for whole.
"""

from __future__ import annotations

import contextlib
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meal.data.sources.contained import alone, contained
from meal.data.sources.raw import RawImages
from meal.files import named_folder, user_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_SECONDS = 60.0  # without a byte, until a download is given up


@dataclass(frozen=True)
class Resource:
    """A published file: its name, where it may be had, and its MD5 as torchvision knows it."""

    name: str
    urls: tuple[str, ...]
    md5: str


@dataclass(frozen=True)
class Published:
    """A dataset of torchvision's.

    Attributes:
        title: its name.
        dataset: the class.
        page: where people find the files.
        resources: the files.
        place: the folder, below the class's root, in which it looks for them.
        unpacked: what it makes of them, below its root, with an MD5 where it compares none; empty
            where it reads them as they are.
        splits: arguments of the class for each part of the training images, then of the test.
    """

    title: str
    dataset: Callable[..., Any]
    page: str
    resources: tuple[Resource, ...]
    splits: tuple[dict[str, Any], ...]
    place: str = "."
    unpacked: Mapping[str, str | None] = field(default_factory=dict)


# Of the unpacked files: who packs them anew, as Linux distributions do, changes the published MD5.
_FASHION_MNIST = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


def fashion_mnist(root: Path | None) -> RawImages:
    """Fashion-MNIST: 60,000 training and 10,000 test images of 28x28 grey pixels."""
    from torchvision.datasets import FashionMNIST

    resources = tuple(
        Resource(name, tuple(mirror + name for mirror in FashionMNIST.mirrors), md5)
        for name, md5 in FashionMNIST.resources
    )
    place = "FashionMNIST/raw"
    return _read(
        Published(
            "Fashion-MNIST",
            FashionMNIST,
            "https://github.com/zalandoresearch/fashion-mnist",
            resources,
            ({"train": True}, {"train": False}),
            place,
            {f"{place}/{name}": digest for name, digest in _FASHION_MNIST.items()},
        ),
        root,
    )


def cifar10(root: Path | None) -> RawImages:
    """CIFAR-10: 50,000 training and 10,000 test images of 32x32 colour pixels, 10 classes."""
    from torchvision.datasets import CIFAR10

    return _cifar("CIFAR-10", CIFAR10, root)


def cifar100(root: Path | None) -> RawImages:
    """CIFAR-100: 50,000 training and 10,000 test images of 32x32 colour pixels, 100 classes."""
    from torchvision.datasets import CIFAR100

    return _cifar("CIFAR-100", CIFAR100, root)


def svhn(root: Path | None) -> RawImages:
    """SVHN: 73,257 training and 26,032 test images of 32x32 colour pixels, house numbers."""
    return _svhn(root, ("train", "test"))


def svhn_extra(root: Path | None) -> RawImages:
    """SVHN whose training images include the 531,131 easier ones of the extra set."""
    return _svhn(root, ("train", "extra", "test"))


def _cifar(title: str, dataset: Any, root: Path | None) -> RawImages:
    return _read(
        Published(
            title,
            dataset,
            "https://www.cs.toronto.edu/~kriz/cifar.html",
            (Resource(dataset.filename, (dataset.url,), dataset.tgz_md5),),
            ({"train": True}, {"train": False}),
            unpacked={dataset.base_folder: None},
        ),
        root,
    )


def _svhn(root: Path | None, splits: Sequence[str]) -> RawImages:
    from torchvision.datasets import SVHN

    parts = [SVHN.split_list[split] for split in splits]
    return _read(
        Published(
            "SVHN",
            SVHN,
            "http://ufldl.stanford.edu/housenumbers/",
            tuple(Resource(name, (url,), md5) for url, name, md5 in parts),
            tuple({"split": split} for split in splits),
        ),
        root,
    )


def _read(published: Published, root: Path | None) -> RawImages:
    """Read a dataset from `root`, or the user's folder; what is missing is downloaded to there.

    The class looks for its files below `root` as it has unpacked them, and beside each other as
    they are published.

    Raises:
        ValueError: naming what is missing or damaged, where it belongs and where it is from.
    """
    folder = root or user_folder()
    if published.unpacked and all((folder / name).exists() for name in published.unpacked):
        return _arrays(published, folder, folder)
    missing = [each for each in published.resources if not (folder / each.name).is_file()]
    if missing:
        _download(published, missing, folder)
    with tempfile.TemporaryDirectory() as name:
        staged = Path(name) / published.place
        staged.mkdir(parents=True, exist_ok=True)
        for resource in published.resources:
            _stage(published, folder / resource.name, staged)
        return _arrays(published, Path(name), folder)


def _stage(published: Published, file: Path, folder: Path) -> None:
    """Unpack a file into `folder`, or link it there if it is no archive."""
    from torchvision.datasets.utils import extract_archive

    if not published.unpacked:
        (folder / file.name).symlink_to(file.absolute())
        return
    try:
        with contained():
            extract_archive(str(file), str(folder))
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise ValueError(
            f"{file} cannot be unpacked: {error}; remove it, and it is downloaded again, or put it "
            f"there anew, from {published.page}"
        ) from None


def _download(published: Published, missing: Sequence[Resource], folder: Path) -> None:
    """Download files into `folder`, with a progress bar; what was cut short is begun again."""
    from torchvision.datasets.utils import download_url

    names = ", ".join(resource.name for resource in missing)
    wanted = f"put them there, from {published.page}, or name another folder as data.root"
    if folder.resolve().is_relative_to(named_folder("data.root", ".").resolve()):
        raise ValueError(
            f"{_called(folder)} lacks {names}, and nothing is downloaded to a folder of "
            f"the project: {wanted}"
        )
    with alone(folder), _no_endless_wait():
        print(f"downloading {names} to {folder} (data.root or MEAL_DATA changes the folder)")
        for resource in missing:
            partial = f"{resource.name}.part"  # it takes its name when it is whole
            for url in resource.urls:
                try:
                    if not (folder / resource.name).is_file():  # or another process was first
                        download_url(url, str(folder), partial, resource.md5)
                        (folder / partial).replace(folder / resource.name)
                    break
                except (RuntimeError, OSError, ValueError, HTTPException) as error:
                    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            else:
                raise ValueError(
                    f"{published.title}: {_called(folder)} lacks {names}, and they could "
                    f"not be downloaded ({reason}): {wanted}"
                )


def _called(folder: Path) -> str:
    """A folder by what named it."""
    return str(folder) if folder == user_folder() else f"data.root={str(folder)!r}"


@contextlib.contextmanager
def _no_endless_wait() -> Iterator[None]:
    """torchvision gives its connections no time limit, and a server may fall silent."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _arrays(published: Published, root: Path, folder: Path) -> RawImages:
    """All parts as arrays, from below `root`, of files of `folder`; the last one is the test.

    The classes compare checksums where a file is more than numbers, or is read as it was published.
    """
    import numpy as np
    from torchvision.datasets.utils import calculate_md5

    for name, digest in published.unpacked.items():
        if digest and (root / name).is_file() and calculate_md5(root / name) != digest:
            print(f"warning: {Path(name).name} in {folder} is not that of {published.page}")

    parts: list[tuple[NDArray[np.uint8], NDArray[np.int64]]] = []
    classes: tuple[str, ...] = ()
    for arguments in published.splits:
        try:
            dataset = published.dataset(str(root), **arguments)
        except Exception as error:  # torchvision passes on what its parsers raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"{published.title} in {folder} cannot be read: {reason}; are its files "
                f"whole, and those of {published.page}?"
            ) from None
        images = np.asarray(dataset.data)
        labels = np.asarray(dataset.targets if hasattr(dataset, "targets") else dataset.labels)
        if images.ndim == 3:
            images = images[..., None]
        elif images.shape[1] == 3:  # channels first
            images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        if images.ndim != 4 or len(images) != len(labels) or len(images) == 0:
            raise ValueError(
                f"{published.title} in {folder} holds {len(images)} images and {len(labels)} labels"
            )
        classes = tuple(getattr(dataset, "classes", map(str, range(10))))
        parts.append((images.astype(np.uint8, copy=False), labels.astype(np.int64)))
    train = parts[:-1]
    return RawImages(
        np.concatenate([images for images, _ in train]) if len(train) > 1 else train[0][0],
        np.concatenate([labels for _, labels in train]),
        *parts[-1],
        classes,
    )
