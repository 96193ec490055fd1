from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from meal.cli.main import app
from meal.configure.leftovers import find_leftovers
from meal.core.work import WorkFolder
from meal.prepare.settings import reading
from tests.conftest import ROOT


def work(root: Path, stage: str, beta: int, data: str, code: int = 0) -> Path:
    made = WorkFolder(root, stage, {"config": {"beta": beta}, "data": data, "network": code})
    (made.path / "000000001.pt").write_bytes(bytes(4096))
    made.release()
    return made.path


def test_only_work_that_nothing_would_resume_is_a_leftover(tmp_path: Path) -> None:
    old, other = work(tmp_path, "distill", 1, "now", code=1), work(tmp_path, "distill", 2, "now")
    kept = work(tmp_path, "distill", 1, "now")  # the newest of the current parameters and data
    then = work(tmp_path, "distill", 1, "then")
    gone = work(tmp_path, "teacher@gone", 1, "now")
    running = WorkFolder(tmp_path, "cache@vgg", {"config": {}})
    current = {"distill": {"beta": 1}, "caches/vgg": {"beta": 1}}
    unknown = find_leftovers(tmp_path, current, None)  # no data is prepared for these parameters
    assert {each.path for each in unknown} == {other, gone}
    found = find_leftovers(tmp_path, current, "now")
    assert {each.path: each.reason for each in found} == {
        old: "older, for other inputs or code",
        then: "for other data",
        other: "for other parameters",
        gone: "teacher@gone is not part of the current parameters",
    }
    assert all(each.size >= 4096 for each in found)
    for each in found:
        each.remove()
    left = {path.name for path in (tmp_path / "distill").iterdir()}
    assert left == {kept.name, f"{kept.name}.json", "lock"}
    running.release()


def test_images_that_have_been_read_are_kept_whatever_the_split(tmp_path: Path) -> None:
    """Preparation resumes with another split, and needs no data: it makes them."""
    data = {"root": "/a", "image_size": 32, "source_size": None, "store": None, "labelled": 100}
    other = {**data, "root": "/b"}
    folders = []
    for source, number in ((data, 1), (data, 2), (other, 1)):
        identity = {"config": reading(slice_of(source)), "number": number}
        made = WorkFolder(tmp_path, "prepare", identity)
        (made.path / "part-000000000.npz").touch()
        made.release()
        folders.append(made.path)
    current = {"prepare": slice_of({**data, "labelled": 50})}
    for prepared in (None, "now"):
        assert {each.path: each.reason for each in find_leftovers(tmp_path, current, prepared)} == {
            folders[0]: "older, for other inputs or code",
            folders[2]: "for other parameters",
        }


def test_evaluation_has_no_parameters_of_its_own(tmp_path: Path) -> None:
    folders = []
    for data, network in (("then", 1), ("now", 1), ("now", 2)):
        made = WorkFolder(tmp_path, "evaluate", {"data": data, "networks": network})
        (made.path / "student-test.npz").touch()
        made.release()
        folders.append(made.path)
    assert find_leftovers(tmp_path, {}, None) == []
    assert {each.path: each.reason for each in find_leftovers(tmp_path, {}, "now")} == {
        folders[0]: "for other data",
        folders[1]: "older, for other inputs or code",
    }


def slice_of(data: dict[str, object]) -> dict[str, object]:
    return {"dataset": "folder", "data": data}


@pytest.mark.parametrize(("answer", "left"), [("n", True), ("y", False)])
def test_clean_asks_before_it_removes(
    answer: str, left: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "dvc.yaml").touch()
    folder = work(tmp_path / ".checkpoints", "distill", 1, "then")
    result = CliRunner().invoke(app, ["clean"], input=answer)
    assert result.exit_code == 0
    assert f"{folder.relative_to(tmp_path)}  for other parameters" in result.output
    assert "remove 1 folder(s)" in result.output
    assert folder.exists() is left
