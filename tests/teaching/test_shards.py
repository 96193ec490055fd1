"""A cache built in parts by several processes is the cache that one process builds."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from meal.data.prepared import Prepared
from meal.teaching import build as build_module
from meal.teaching.build import cut, parse_shard
from meal.work import WorkFolder
from tests.teaching.test_cache import CPU, cache_slice, files_of, make_cache


@pytest.mark.parametrize("images", [1, 65_536, 65_537, 200_000])
def test_parts_cover_every_view_once_and_none_is_small(images: int) -> None:
    parts = cut(3, images)
    assert [part.number for part in parts] == list(range(len(parts)))
    for view in range(3):
        own = [part for part in parts if part.view == view]
        assert own[0].start == 0 and own[-1].stop == images
        assert all(a.stop == b.start for a, b in itertools.pairwise(own))
        lengths = [part.stop - part.start for part in own]
        assert max(lengths) - min(lengths) <= 1 and max(lengths) <= 65_536


@pytest.mark.parametrize("text", ["", "2", "0/3", "4/3", "a/b", "1/0", "-1/2", "1/2/3"])
def test_a_shard_is_one_of_some(text: str) -> None:
    with pytest.raises(ValueError, match=r"MEAL_SHARD=.*i/n is expected"):
        parse_shard(text)


@pytest.mark.parametrize("shards", [2, 5])
def test_parts_built_apart_equal_one_whole_build(
    shards: int, data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "_MOST_IMAGES", 40)  # three parts of each of the views
    whole = make_cache(data, tmp_path / "whole")
    folder, weights = tmp_path / "parts" / "caches" / "one", tmp_path / "whole" / "teachers" / "one"
    for which in reversed(range(1, shards + 1)):  # in any order
        work = WorkFolder(tmp_path / "work", "cache@one", {}, part=f"{which}-of-{shards}")
        made = build_module.build_cache(
            cache_slice(), data, weights, folder, work, CPU, (which, shards)
        )
        assert made is None and not folder.exists()
        work.release()
    answered = []
    answers = build_module._answers

    def count(*arguments: Any) -> Any:
        answered.append(arguments)
        return answers(*arguments)

    monkeypatch.setattr(build_module, "_answers", count)
    work = WorkFolder(tmp_path / "work", "cache@one", {})
    build_module.build_cache(cache_slice(), data, weights, folder, work, CPU)
    assert answered == []  # nothing was left to answer
    assert files_of(folder) == files_of(whole.folder)


def test_answers_of_an_unfinished_cache_that_were_damaged_are_made_again(
    data: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = make_cache(data, tmp_path / "whole")
    folder, weights = tmp_path / "parts" / "one", tmp_path / "whole" / "teachers" / "one"
    work = WorkFolder(tmp_path / "work", "cache@one", {}, part="1-of-1")
    build_module.build_cache(cache_slice(), data, weights, folder, work, CPU, (1, 1))
    work.release()
    file = work.path / "logits.npy"
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)
    again = WorkFolder(tmp_path / "work", "cache@one", {})
    build_module.build_cache(cache_slice(), data, weights, folder, again, CPU)
    assert "000002.json or its answers are damaged; they are made again" in capsys.readouterr().out
    assert files_of(folder) == files_of(whole.folder)


def test_two_processes_cannot_build_the_same_part_nor_the_whole_beside_one(tmp_path: Path) -> None:
    first = WorkFolder(tmp_path, "cache@one", {}, part="1-of-2")
    second = WorkFolder(tmp_path, "cache@one", {}, part="2-of-2")
    for part in ("1-of-2", None):
        with pytest.raises(ValueError, match="already being run by process"):
            WorkFolder(tmp_path, "cache@one", {}, part=part)
    first.release()
    second.release()
    WorkFolder(tmp_path, "cache@one", {})
