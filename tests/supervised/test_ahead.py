from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from meal.core import ranks
from meal.core.errors import UserError
from meal.core.files import write_sealed
from meal.data.prepared import Prepared
from meal.models import memory
from meal.supervised.ahead import check_all, check_disk, check_student

CACHE = {"enabled": True, "dtype": "float16", "top_k": None, "blocks": 2, "align": "spatial"}


def write_slices(folder: Path, **changes: Any) -> Path:
    for name in ("one", "two"):
        part = {"view_count": 10, "cache": {**CACHE, **changes}}
        write_sealed(folder / f"{name}.json", part)
    return folder


@pytest.mark.parametrize(
    ("changes", "needed"),
    # 2 teachers and their mean, 10 views of 96 images: 3 logits and 2 blocks of 16 values, of 2
    # bytes each; one probability and its class; or logits alone.
    [
        ({}, 3 * 10 * 96 * (3 + 2 * 16) * 2),
        ({"top_k": 1, "blocks": 0}, 3 * 10 * 96 * (2 + 2)),
        ({"align": "projected"}, 3 * 10 * 96 * 3 * 2),
        ({"enabled": False}, 0),
    ],
)
def test_caches_that_no_disk_holds_are_an_error_before_any_teacher_trains(
    changes: dict[str, Any],
    needed: int,
    data: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slices = write_slices(tmp_path / "slices", **changes)

    def free(size: int) -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=size)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    def check() -> None:
        check_disk(slices, tmp_path / "caches", tmp_path / "teachers", data)

    free(needed)
    check()
    if not needed:
        return
    free(needed - 1)
    with pytest.raises(UserError, match=r"^views\.count=10: 2 caches of 10 views of 96 images"):
        check()
    # A cache that is there is not built again, unless it is for others or its teacher is trained.
    (tmp_path / "teachers" / "one").mkdir(parents=True)
    cache = {**CACHE, **changes}
    manifest = {**cache, "view_count": 10, "data": data.fingerprint, "block_count": cache["blocks"]}
    write_sealed(tmp_path / "caches" / "one" / "manifest.json", manifest)
    check()
    for other in ({"view_count": 2}, {"block_count": 1}):
        write_sealed(tmp_path / "caches" / "one" / "manifest.json", {**manifest, **other})
        with pytest.raises(UserError, match="2 caches"):
            check()


def views(padding: int) -> dict[str, Any]:
    return {"seed": 0, "flip": False, "size": 289, "crop_padding": padding}


def write_student(folder: Path, padding: int = 2, width: float = 1.0, **distill: Any) -> Path:
    given = {
        "pool": "all", "labelled_share": None, "batch_size": 32, "precision": "float32",
        "frozen": [], "init": None,
        **distill,
    }  # fmt: skip
    network = {"arch": "tiny", "width": width}
    content = {"name": "one", "distill": given, "network": network, "views": views(padding)}
    write_sealed(folder / "distill.json", content)
    return folder / "distill.json"


@pytest.mark.parametrize("key", ["views", "teaching.views or networks.two.training.views"])
def test_padding_beyond_the_image_is_an_error_before_any_teacher_trains(
    key: str, data: Prepared, tmp_path: Path
) -> None:
    own = {"name": "two", "training": {"frozen": []}, "network": {"arch": "tiny", "width": 1.0}}
    for padding in (8, 9):
        write_student(tmp_path, padding if key == "views" else 2)
        shown = views(2 if key == "views" else padding)
        for path in (tmp_path / "baseline.json", tmp_path / "teachers" / "two.json"):
            write_sealed(path, {**own, "views": shown})
        if padding == 8:
            check_all(tmp_path, data, torch.device("cpu"))
            continue
        with pytest.raises(UserError, match=rf"^{key}\.crop_padding=9: images have 16 pixels"):
            check_all(tmp_path, data, torch.device("cpu"))


def test_a_student_that_cannot_be_trained_is_an_error_before_any_teacher_trains(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cpu")
    check_student(write_student(tmp_path), data, device)
    for change in ({"pool": "unlabelled"}, {"labelled_share": 0.5}):
        with pytest.raises(UserError, match="every training image has a label"):
            check_student(write_student(tmp_path, **change), data, device)
    with pytest.raises(UserError, match=r"^distill\.frozen='stem': no such sub-module"):
        check_student(write_student(tmp_path, frozen=["stem"]), data, device)
    monkeypatch.setattr(memory, "total_memory", lambda device: 2**20)
    with pytest.raises(UserError, match=r"tiny at width 64 .* training it with batch_size 32"):
        check_student(write_student(tmp_path, width=64.0), data, device)
    # Each of several processes holds its part of a batch.
    monkeypatch.setattr(ranks, "size", lambda: 4)
    with pytest.raises(UserError, match=r"tiny at width 64 .* training it with batch_size 8"):
        check_student(write_student(tmp_path, width=64.0), data, device)
