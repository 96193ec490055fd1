"""An interrupted preparation of files: what it reads again, and that the result is the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from meal.core.errors import UserError
from meal.data.prepared import Prepared
from meal.prepare import scanning
from meal.prepare.parts import divide
from meal.prepare.preparation import prepare
from meal.prepare.settings import PrepareSlice
from tests.files import write_classes

FILES = 150  # three parts


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_classes(tmp_path / "images" / "train", {"cat": 70, "dog": 60})
    write_classes(tmp_path / "images" / "test", {"cat": 10, "dog": 10}, seed=50_000)
    return tmp_path / "images"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read, in order; reading `stop` of them interrupts."""
    found: list[str] = []
    read = scanning.read_image

    def watched(path: Path) -> bytes:
        found.append(path.name)
        if len(found) == watched.stop:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        return read(path)

    watched.stop = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(scanning, "read_image", watched)
    return found


def prepared(root: Path, out: Path, work: Path | None, **data: Any) -> Prepared:
    settings = {"root": str(root), "image_size": 16, "validation_fraction": 0.25, **data}
    config = PrepareSlice.model_validate({"dataset": "folder", "data": settings})
    return prepare(config, out, work=work)


def interrupted(root: Path, out: Path, work: Path, after: int, **data: Any) -> None:
    scanning.read_image.stop = after  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        prepared(root, out, work, **data)
    assert not out.exists()
    scanning.read_image.stop = 0  # type: ignore[attr-defined]


def test_parts_cover_all_files_once() -> None:
    for count in (0, 1, 64, 65, 150, 10_000, 1_281_167):
        parts = divide(count)
        bounds = [0, *(part.stop for part in parts)]
        assert [part.start for part in parts] == bounds[:-1] and bounds[-1] == count
        assert all(part.stop - part.start <= 4096 for part in parts)
    assert len(divide(150)) == 3 and len(divide(10_000)) == 64


@pytest.mark.parametrize("store", ["array", "index"])
def test_an_interrupted_preparation_reads_the_rest_and_writes_the_same_bytes(
    store: str, root: Path, work: Path, reads: list[str], tmp_path: Path
) -> None:
    whole = prepared(root, tmp_path / "whole", None, store=store)
    assert len(reads) == FILES
    reads.clear()
    interrupted(root, tmp_path / "out", work, after=140, store=store)
    reads.clear()
    resumed = prepared(root, tmp_path / "out", work, store=store)
    assert len(reads) == FILES - 128  # two parts of 64 were done
    assert resumed.fingerprint == whole.fingerprint


def test_broken_files_are_read_again_with_the_others_of_their_part(
    root: Path, work: Path, reads: list[str], tmp_path: Path
) -> None:
    """A repair may leave size and time as they were, as may a network file system that recovers."""
    broken = root / "train" / "cat" / "000.jpg"
    content, times = broken.read_bytes(), broken.stat().st_mtime_ns
    broken.write_bytes(b"x" * len(content))
    os.utime(broken, ns=(times, times))
    with pytest.raises(UserError, match="1 of 150 files are broken"):
        prepared(root, tmp_path / "out", work)
    broken.write_bytes(content)
    os.utime(broken, ns=(times, times))
    reads.clear()
    repaired = prepared(root, tmp_path / "out", work)
    assert len(reads) == 64
    assert repaired.fingerprint == prepared(root, tmp_path / "fresh", None).fingerprint


def test_parts_for_another_size_or_store_are_not_used(
    root: Path, work: Path, reads: list[str], tmp_path: Path
) -> None:
    """The size may follow from the first image, and the store from the number of images."""
    prepared(root, tmp_path / "a", work)
    for changes in ({"image_size": 20}, {"store": "index"}):
        reads.clear()
        found = prepared(root, tmp_path / "b", work, **changes)
        assert len(reads) == FILES
        assert found.fingerprint == prepared(root, tmp_path / "c", None, **changes).fingerprint


def test_what_has_changed_or_is_damaged_is_read_again(
    root: Path, work: Path, reads: list[str], tmp_path: Path
) -> None:
    prepared(root, tmp_path / "before", work)
    changed = root / "train" / "cat" / "001.jpg"
    other = root / "train" / "cat" / "002.jpg"
    changed.write_bytes(other.read_bytes())
    os.utime(changed, (1, 1))  # older than before: any other time counts
    parts = sorted(work.glob("part-*.npz"))
    assert len(parts) == 3
    parts[1].write_bytes(parts[1].read_bytes()[:1000])
    reads.clear()
    after = prepared(root, tmp_path / "after", work)
    assert len(reads) == 128 and "001.jpg" in reads
    assert after.fingerprint == prepared(root, tmp_path / "fresh", None).fingerprint


def test_a_swap_of_two_files_is_noticed_even_if_size_and_time_are_equal(
    root: Path, work: Path, reads: list[str], tmp_path: Path
) -> None:
    """As after unpacking an archive, whose files all have one time."""
    one, two = (root / "train" / "cat" / f"00{number}.jpg" for number in (1, 2))
    content = one.read_bytes()
    two.write_bytes(content[:-2] + b"\xff\xd9")  # as long
    for path in (one, two):
        os.utime(path, (1, 1))
    prepared(root, tmp_path / "before", work)
    one.rename(root / "swapped")
    two.rename(one)
    (root / "swapped").rename(two)
    reads.clear()
    prepared(root, tmp_path / "after", work)
    assert {"001.jpg", "002.jpg"} <= set(reads)
