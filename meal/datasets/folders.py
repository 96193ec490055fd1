"""Image files in folders: one sub-folder per class."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from meal.core.errors import UserError
from meal.core.files import atomic_folder
from meal.core.paths import user_folder
from meal.datasets.archives import contained, exclusive
from meal.datasets.raw import UNLABELLED, Listing, RawFiles

LOGGER = logging.getLogger(__name__)

# Unicode categories that no class name may contain: control characters and undecodable bytes.
_UNPRINTABLE = ("Cc", "Cs")
_UNLABELLED = ("unlabelled", "unlabeled")  # folders of training images without labels
# Folders of splits, not of classes: beside train/, or without it by mistake.
_VALIDATION = ("val", "valid", "validation")
_SPLITS = ("test", *_VALIDATION, "training", "testing")
_DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
ENDINGS = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".ppm",
    ".pgm",
    ".tif",
    ".tiff",
    ".gif",
)


def folder(root: Path | None) -> RawFiles:
    """The user's own images: `train/CLASS/...` and `test/CLASS/...`, or only `CLASS/...`.

    `unlabelled/` beside them holds further training images, at any depth, which have no labels.
    `val/` (or `valid/`, `validation/`) beside both is the validation split; without `test/`, it is
    the test set. With neither, a test set is split off the training images.
    """
    if root is None:
        raise UserError(
            "data.root=auto: dataset folder needs it; set it to the folder of your images"
        )
    _check_folder(root)
    there = _classes(root)
    unlabelled = _unlabelled_folder(root, there)
    if "train" not in there:
        split = next((name for name in there if name.lower() in _SPLITS), None)
        if split:
            raise UserError(
                f"{root} holds {split}/ but no train/; allowed: train/ and test/ or val/, or one "
                "folder per class"
            )
        return _listed(root, ".", None, None, unlabelled)
    held = next((name for name in _VALIDATION if name in there), None)
    if "test" in there:
        return _listed(root, "train", held, "test", unlabelled)
    if held:
        print(f"{root} holds no test/: {held}/ is the test set", flush=True)
    return _listed(root, "train", None, held, unlabelled)


def _unlabelled_folder(root: Path, there: Sequence[str]) -> str | None:
    """The name of the folder of unlabelled images; None if there is none.

    Raises:
        UserError: if there are two, or one whose name is only almost right.
    """
    found = [name for name in there if name.lower() in _UNLABELLED]
    if len(found) > 1:
        raise UserError(f"{root} holds {' and '.join(found)}; join them")
    if found and found[0] not in _UNLABELLED:
        raise UserError(f"{root / found[0]}: rename it to {found[0].lower()}, in lower case")
    return found[0] if found else None


def imagenet(root: Path | None) -> RawFiles:
    """ILSVRC 2012: `train/WNID/*.JPEG`, and `val/WNID/*.JPEG` as the test images.

    If the folder holds the published archives, torchvision's class verifies and unpacks them.
    """
    place = root or user_folder() / "imagenet"
    page = "https://image-net.org/download.php"
    lacking = [split for split in ("train", "val") if not (place / split).is_dir()]
    if lacking:
        _unpack_imagenet(place, lacking, page)
    if not any(entry.is_dir() for entry in (place / "val").iterdir()):
        raise UserError(
            f"{place / 'val'} holds no sub-folders: sort its images into one per class, or put "
            f"ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz from {page} into {place} and "
            "remove val/; the archives are then unpacked and sorted"
        )
    return _listed(place, "train", None, "val")


def _unpack_imagenet(place: Path, splits: Sequence[str], page: str) -> None:
    """Create the folders of splits from the published archives."""
    parts = {split: (_DEVKIT, f"ILSVRC2012_img_{split}.tar") for split in splits}
    needed = dict.fromkeys(name for archives in parts.values() for name in archives)
    missing = [name for name in needed if not (place / name).is_file()]
    if missing:
        raise UserError(
            f"{place} lacks {' and '.join(splits)}, with one sub-folder per class, and the "
            f"archives to create them: put {', '.join(missing)} from {page} there, or set "
            "data.root to another folder"
        )
    with exclusive(place):
        for split, archives in parts.items():
            if not (place / split).is_dir():  # else another process has unpacked it
                print(f"unpacking {', '.join(archives)} in {place}", flush=True)
                _unpack(place, split, archives)


def _unpack(place: Path, split: str, archives: Sequence[str]) -> None:
    from torchvision.datasets import ImageNet

    with atomic_folder(place / split) as temporary:  # never looks complete too early
        for name in archives:
            (temporary / name).symlink_to((place / name).absolute())
        try:
            with contained():
                ImageNet(str(temporary), split)
        except Exception as error:  # torchvision lets its parsers' exceptions through
            raise UserError(f"{place}: the archives cannot be unpacked: {error}") from None
        (temporary / split).rename(temporary / "unpacked")
        for entry in (temporary / "unpacked").iterdir():
            entry.rename(temporary / entry.name)
        for name in ("unpacked", *archives, "meta.bin"):
            entry = temporary / name
            entry.rmdir() if entry.is_dir() else entry.unlink()


def _listed(
    root: Path, train: str, validation: str | None, test: str | None, unlabelled: str | None = None
) -> RawFiles:
    """The images of the splits; the sub-folders of `train` define the classes."""
    _check_folder(root / train)
    classes = [name for name in _classes(root / train) if train != "." or name != unlabelled]
    if len(classes) < 2:
        raise UserError(
            f"{root / train} holds {len(classes)} class(es) ({', '.join(classes) or 'none'}): at "
            "least two sub-folders of images are needed, one per class"
        )
    inside = [name for name in classes if name.lower() in _UNLABELLED]
    if inside:
        raise UserError(
            f"{root / train / inside[0]} cannot be a class: images without labels belong in "
            f"{root / _UNLABELLED[0]}"
        )
    if train != ".":
        known = {train, validation, test, unlabelled}
        for name in sorted(set(_classes(root)) - known):
            LOGGER.warning("%s is ignored", root / name)
    found: dict[str, Listing] = {}
    ignored = 0
    for split in filter(None, (train, validation, test)):
        others = sorted(
            set(_classes(root / split)) - {*classes, unlabelled if split == "." else None}
        )
        if others:
            raise UserError(
                f"{root / split} holds classes that {root / train} lacks: {', '.join(others)}"
            )
        paths: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            place = root / split / name
            images, rest = find_images(place) if place.is_dir() else ([], 0)
            if not images and split == train:
                raise UserError(f"{place} holds no images; fill it or remove it")
            if not images:
                LOGGER.warning("%s holds no images of class %s", root / split, name)
            paths += [os.path.relpath(path, root) for path in images]
            labels += [label] * len(images)
            ignored += rest
        ignored += _files_beside(root / split)
        if not paths:
            raise UserError(f"{root / split} holds no images")
        found[split] = Listing(tuple(paths), tuple(labels))
    without_labels: Listing | None = None
    if unlabelled:
        images, rest = find_images(root / unlabelled)
        ignored += rest
        if not images:
            raise UserError(f"{root / unlabelled} holds no images; fill it or remove it")
        names = tuple(os.path.relpath(path, root) for path in images)
        without_labels = Listing(names, (UNLABELLED,) * len(names))
    return RawFiles(
        root,
        found[train],
        found[validation] if validation else None,
        found[test] if test else None,
        tuple(classes),
        without_labels,
        ignored,
    )


def _check_folder(place: Path) -> None:
    if not place.is_dir():
        raise UserError(f"data.root: {place} is not a folder")


def _classes(place: Path) -> list[str]:
    """The names of the sub-folders, sorted, without hidden ones."""
    try:
        with os.scandir(place) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{place} cannot be read: {error.strerror}") from None
    names = []
    for entry in found:
        if entry.name.startswith("."):
            continue
        _check_link(entry.path)
        if entry.is_dir():
            if any(unicodedata.category(character) in _UNPRINTABLE for character in entry.name):
                raise UserError(
                    f"{place}: the folder {entry.name!a} cannot name a class: it holds "
                    "control characters or is not UTF-8; rename it"
                )
            names.append(entry.name)
    return names


def _files_beside(place: Path) -> int:
    """The number of files beside the class folders."""
    with os.scandir(place) as entries:
        return sum(not entry.is_dir() for entry in entries)


def _check_link(path: str) -> None:
    """Raise UserError for a dangling symlink: its target may be a folder on a missing disk."""
    if os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114 - many calls
        raise UserError(f"{path} is a dangling symlink; fix or remove it")


def find_images(
    place: Path, report: Callable[[UserError], None] | None = None
) -> tuple[Sequence[str], int]:
    """Paths of the images anywhere below a folder, sorted, and the number of other files.

    A folder that cannot be read is an error; torchvision would skip it silently.

    Args:
        place: the folder.
        report: receives each error, after which the search goes on; None to raise it.
    """

    def say(message: str) -> None:
        if report is None:
            raise UserError(message)
        report(UserError(message))

    def fail(error: OSError) -> None:
        say(f"{error.filename} cannot be read: {error.strerror}")

    images: list[str] = []
    others = 0
    read: set[str] = set()  # real paths of the folders read, and of their parents
    for folder_, folders, files in os.walk(place, onerror=fail, followlinks=True):
        real = os.path.realpath(folder_)
        if real in read:
            say(f"{folder_} leads to a folder whose images have already been read")
            folders.clear()
            continue
        while real not in read:
            read.add(real)
            real = os.path.dirname(real)  # noqa: PTH120 - a hundred thousand calls
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = os.path.join(folder_, name)  # noqa: PTH118 - a million calls
            if name.lower().endswith(ENDINGS) and not name.startswith("."):
                images.append(path)
            else:
                if not name.startswith("."):
                    try:
                        _check_link(path)
                    except UserError as error:
                        say(str(error))
                others += 1
    return images, others
