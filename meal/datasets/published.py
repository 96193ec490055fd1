"""Published datasets, read, downloaded and verified by torchvision's own classes.

The files kept on disk are the published ones: archives with a checksum. `prepare` unpacks them into
a temporary folder, so a half-unpacked folder is never mistaken for a complete one.
"""

from __future__ import annotations

import logging
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meal.core.errors import UserError
from meal.core.paths import user_folder
from meal.datasets.archives import contained
from meal.datasets.download import Resource, download
from meal.datasets.raw import RawImages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A torchvision dataset.

    Attributes:
        title: its name.
        dataset: torchvision's class.
        page: the web page with the files.
        resources: the published files.
        place: the folder below the class's root in which the class looks for them.
        unpacked: the unpacked files below the root, each with an MD5 if the class checks none;
            empty if the class reads the published files directly.
        splits: arguments of the class for the training images, then for the test set.
        extra: its arguments for further training images; None if there are none.
    """

    title: str
    dataset: Callable[..., Any]
    page: str
    resources: tuple[Resource, ...]
    splits: tuple[dict[str, Any], dict[str, Any]]
    extra: dict[str, Any] | None = None
    place: str = "."
    unpacked: Mapping[str, str | None] = field(default_factory=dict)


# MD5s of the unpacked files: Linux distributions repack them, so the archives' MD5s differ.
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
            None,
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
    return _svhn(root, None)


def svhn_extra(root: Path | None) -> RawImages:
    """SVHN with the 531,131 easier images of its extra set."""
    return _svhn(root, "extra")


def stl10(root: Path | None) -> RawImages:
    """STL-10: 5,000 training and 8,000 test images of 96x96 pixels, and 100,000 without labels."""
    from torchvision.datasets import STL10

    return _read(
        Published(
            "STL-10",
            STL10,
            "https://cs.stanford.edu/~acoates/stl10/",
            (Resource(STL10.filename, (STL10.url,), STL10.tgz_md5),),
            ({"split": "train"}, {"split": "test"}),
            {"split": "unlabeled"},
            unpacked={STL10.base_folder: None},
        ),
        root,
    )


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


def _svhn(root: Path | None, extra: str | None) -> RawImages:
    from torchvision.datasets import SVHN

    parts = [SVHN.split_list[split] for split in ("train", "test", extra) if split]
    return _read(
        Published(
            "SVHN",
            SVHN,
            "http://ufldl.stanford.edu/housenumbers/",
            tuple(Resource(name, (url,), md5) for url, name, md5 in parts),
            ({"split": "train"}, {"split": "test"}),
            {"split": extra} if extra else None,
        ),
        root,
    )


def _read(published: Published, root: Path | None) -> RawImages:
    """Read a dataset from `root` or the user's folder, downloading missing files into it.

    The folder may hold the unpacked files, in torchvision's layout, or the published ones.

    Raises:
        UserError: if files are missing or damaged: which, where they belong and where to get them.
    """
    folder = root or user_folder()
    if published.unpacked and all((folder / name).exists() for name in published.unpacked):
        return _arrays(published, folder, folder)
    missing = [each for each in published.resources if not (folder / each.name).is_file()]
    if missing:
        download(missing, folder, published.title, published.page)
    with tempfile.TemporaryDirectory() as name:
        staged = Path(name) / published.place
        staged.mkdir(parents=True, exist_ok=True)
        for resource in published.resources:
            _stage(published, folder / resource.name, staged)
        return _arrays(published, Path(name), folder)


def _stage(published: Published, file: Path, folder: Path) -> None:
    """Unpack a file into `folder`, or link it there if it is not an archive."""
    from torchvision.datasets.utils import extract_archive

    if not published.unpacked:
        (folder / file.name).symlink_to(file.absolute())
        return
    try:
        with contained():
            extract_archive(str(file), str(folder))
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise UserError(
            f"{file} cannot be unpacked: {error}; remove it to download it again, or replace it "
            f"with the one from {published.page}"
        ) from None


def _arrays(published: Published, root: Path, folder: Path) -> RawImages:
    """The splits as arrays, read below `root` from the files of `folder`.

    torchvision's classes check the MD5 of pickles and of published files that they read directly.
    """
    import numpy as np
    from torchvision.datasets.utils import calculate_md5

    for name, digest in published.unpacked.items():
        if digest and (root / name).is_file() and calculate_md5(root / name) != digest:
            LOGGER.warning(
                "%s in %s differs from the one at %s", Path(name).name, folder, published.page
            )

    parts: list[tuple[NDArray[np.uint8], NDArray[np.int64]]] = []
    classes: tuple[str, ...] = ()
    for arguments in (*published.splits, *([published.extra] if published.extra else [])):
        try:
            dataset = published.dataset(str(root), **arguments)
        except Exception as error:  # torchvision lets its parsers' exceptions through
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{published.title} in {folder} cannot be read: {reason}; are its files "
                f"complete, and the ones from {published.page}?"
            ) from None
        images = np.asarray(dataset.data)
        labels = np.asarray(dataset.targets if hasattr(dataset, "targets") else dataset.labels)
        if images.ndim == 3:
            images = images[..., None]
        elif images.shape[1] == 3:  # channels first
            images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        if images.ndim != 4 or len(images) != len(labels) or len(images) == 0:
            raise UserError(
                f"{published.title} in {folder} holds {len(images)} images and {len(labels)} labels"
            )
        classes = tuple(getattr(dataset, "classes", map(str, range(10))))
        parts.append((images.astype(np.uint8, copy=False), labels.astype(np.int64)))
    extra_images, extra_labels = parts[2] if published.extra else (None, None)
    known = extra_labels is not None and bool((extra_labels >= 0).all())
    return RawImages(*parts[0], *parts[1], classes, extra_images, extra_labels if known else None)
