from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from meal.core.errors import UserError
from meal.core.files import write_sealed
from meal.data.prepared import Prepared
from meal.supervised.ahead import check_disk, check_student

CACHE = {"enabled": True, "dtype": "float16", "top_k": None}


def write_slices(folder: Path, **changes: Any) -> Path:
    for name in ("one", "two"):
        part = {"view_count": 10, "cache": {**CACHE, **changes}}
        write_sealed(folder / f"{name}.json", part)
    return folder


@pytest.mark.parametrize(
    ("changes", "needed"),
    # 2 teachers, 10 views of 96 images: 3 logits of 2 bytes; or one probability and its class.
    [({}, 2 * 10 * 96 * 3 * 2), ({"top_k": 1}, 2 * 10 * 96 * (2 + 2)), ({"enabled": False}, 0)],
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

    free(needed)
    check_disk(slices, tmp_path / "caches", data)
    if needed:
        free(needed - 1)
        with pytest.raises(UserError, match=r"^views\.count=10: 2 caches of 10 views of 96 images"):
            check_disk(slices, tmp_path / "caches", data)
        (tmp_path / "caches" / "one").mkdir(parents=True)  # which is not built again
        free(needed // 2)
        check_disk(slices, tmp_path / "caches", data)


def test_a_pool_that_the_data_lack_is_an_error_before_any_teacher_trains(
    data: Prepared, tmp_path: Path
) -> None:
    def write(**distill: Any) -> Path:
        given = {"pool": "all", "labelled_share": None, "batch_size": 32, **distill}
        write_sealed(tmp_path / "distill.json", {"distill": given})
        return tmp_path / "distill.json"

    check_student(write(), data)
    for change in ({"pool": "unlabelled"}, {"labelled_share": 0.5}):
        with pytest.raises(UserError, match="every training image has a label"):
            check_student(write(**change), data)
