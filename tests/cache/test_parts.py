"""A cache that several processes build in parts equals the one that a single process builds."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from meal.cache import build, parts
from meal.cache.parts import Shard, divide
from meal.core.errors import UserError
from meal.core.work import WorkFolder
from meal.data.prepared import Prepared
from tests.cache.test_cache import files_of
from tests.caches import build_cache, build_shard, cache_slice, make_cache


@pytest.mark.parametrize("images", [1, 65_536, 65_537, 200_000])
def test_parts_cover_every_view_once_and_are_of_similar_size(images: int) -> None:
    made = divide(3, images)
    assert [part.number for part in made] == list(range(len(made)))
    for view in range(3):
        own = [part for part in made if part.view == view]
        assert own[0].start == 0 and own[-1].stop == images
        assert all(a.stop == b.start for a, b in itertools.pairwise(own))
        lengths = [part.stop - part.start for part in own]
        assert max(lengths) - min(lengths) <= 1 and max(lengths) <= 65_536


@pytest.mark.parametrize("text", ["", "2", "0/3", "4/3", "a/b", "1/0", "-1/2", "1/2/3"])
def test_a_malformed_shard_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match=r"--part .*expected i/n"):
        Shard.parse(text)


@pytest.mark.parametrize("shards", [2, 5])
def test_parts_built_separately_equal_a_single_build(
    shards: int, data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_MOST_IMAGES", 40)  # three parts of each of the views
    whole = make_cache(data, tmp_path / "whole")
    folder, weights = tmp_path / "parts" / "caches" / "one", tmp_path / "whole" / "teachers" / "one"
    for which in reversed(range(1, shards + 1)):  # in any order
        work = WorkFolder(tmp_path / "work", "cache@one", {}, part=f"{which}-of-{shards}")
        build_shard(data, weights, work, Shard(which, shards))
        assert not folder.exists()
        work.release()
    computed = []
    outputs = build.view_outputs

    def count(*arguments: Any) -> Any:
        computed.append(arguments)
        return outputs(*arguments)

    monkeypatch.setattr(build, "view_outputs", count)
    work = WorkFolder(tmp_path / "work", "cache@one", {})
    build_cache(cache_slice(), data, weights, folder, work)
    assert computed == []  # nothing was left to compute
    assert files_of(folder) == files_of(whole.folder)


def test_damaged_outputs_of_an_unfinished_cache_are_rebuilt(
    data: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = make_cache(data, tmp_path / "whole")
    folder, weights = tmp_path / "parts" / "one", tmp_path / "whole" / "teachers" / "one"
    work = WorkFolder(tmp_path / "work", "cache@one", {}, part="1-of-1")
    build_shard(data, weights, work, Shard(1, 1))
    work.release()
    file = work.path / "views" / "00002.npy"
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)
    again = WorkFolder(tmp_path / "work", "cache@one", {})
    build_cache(cache_slice(), data, weights, folder, again)
    assert "000002.json or the outputs it describes are damaged" in caplog.text
    assert files_of(folder) == files_of(whole.folder)


def test_processes_cannot_build_the_same_part_or_the_whole_at_once(tmp_path: Path) -> None:
    first = WorkFolder(tmp_path, "cache@one", {}, part="1-of-2")
    second = WorkFolder(tmp_path, "cache@one", {}, part="2-of-2")
    for part in ("1-of-2", None):
        with pytest.raises(UserError, match="already being run by process"):
            WorkFolder(tmp_path, "cache@one", {}, part=part)
    first.release()
    second.release()
    WorkFolder(tmp_path, "cache@one", {})
