from __future__ import annotations

import ast
import errno
import os
from pathlib import Path

import pytest

from meal.core.errors import UserError
from meal.core.files import (
    atomic_folder,
    atomic_path,
    read_json,
    read_sealed,
    write_json,
    write_sealed,
)
from tests.conftest import ROOT


def test_a_failing_block_leaves_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "new") as temporary:
        (temporary / "b.txt").write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_an_error_of_a_full_disk_names_the_file_and_files_follow_the_umask(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"a\.txt cannot be written: No space left"),
        atomic_path(tmp_path / "a.txt"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    before = os.umask(0o027)
    try:
        with atomic_folder(tmp_path / "folder") as made:
            write_json(made / "b.json", {})
    finally:
        os.umask(before)
    modes = [
        path.stat().st_mode & 0o777
        for path in (made.parent / "folder", tmp_path / "folder" / "b.json")
    ]
    assert modes == [0o750, 0o640]


def test_nothing_is_renamed_before_its_bytes_are_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut, a name must not stand for content that was never written."""
    order: list[tuple[str, str]] = []
    sync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        order.append(("sync", Path(f"/proc/self/fd/{handle}").readlink().name))
        sync(handle)

    def renamed(self: Path, target: Path) -> Path:
        order.append(("rename", target.name))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_json(tmp_path / "a.json", {"a": 1})
    assert order[0][0] == "sync" and order[0][1].startswith(".a.json.")
    assert order[1:] == [("rename", "a.json"), ("sync", tmp_path.name)]
    order.clear()
    with atomic_folder(tmp_path / "folder") as made:
        (made / "below").mkdir()
        (made / "below" / "b.npy").write_bytes(b"b")
    names = [name for _, name in order]
    rename = names.index("folder")
    assert {"below", "b.npy", made.name} == set(names[:rename])
    assert names[rename + 1 :] == [tmp_path.name]


def test_leftovers_of_a_killed_process_are_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".a.json.abcd1234").write_text("half")
    (tmp_path / ".data.abcd1234").mkdir()
    (tmp_path / ".data.abcd1234" / "x.npy").write_text("half")
    (tmp_path / ".data.json.abcd1234").write_text("another path's")
    write_json(tmp_path / "a.json", {})
    with atomic_folder(tmp_path / "data"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".data.json.abcd1234", "a.json", "data",
    ]  # fmt: skip


def test_processes_that_share_a_path_keep_each_others_files(tmp_path: Path) -> None:
    target = tmp_path / "note.json"
    with atomic_path(target, shared=True) as first:
        write_json(target, {"a": 1}, shared=True)
        first.write_text('{"a": 2}')
    assert read_json(target, "x") == {"a": 2}


def test_a_seal_covers_every_value(tmp_path: Path) -> None:
    write_sealed(tmp_path / "m.json", {"a": 1, "b": [1, 2]})
    assert read_sealed(tmp_path / "m.json", "x")["b"] == [1, 2]
    text = (tmp_path / "m.json").read_text()
    (tmp_path / "m.json").write_text(text.replace("2", "3", 1))
    with pytest.raises(UserError, match=r"m\.json is damaged"):
        read_sealed(tmp_path / "m.json", "x")


FORBIDDEN_NAMES = {"eval", "exec"}
FORBIDDEN_ATTRIBUTES = {
    ("pickle", "load"), ("pickle", "loads"), ("yaml", "load"), ("yaml", "unsafe_load"),
    ("os", "system"), ("os", "popen"),
}  # fmt: skip


def forbidden(tree: ast.AST) -> list[str]:
    """Calls that would execute what they read."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function, keywords = node.func, {k.arg: k.value for k in node.keywords}
        if isinstance(function, ast.Name) and function.id in FORBIDDEN_NAMES:
            found.append(function.id)
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            name = (function.value.id, function.attr)
            if name in FORBIDDEN_ATTRIBUTES:
                found.append(".".join(name))
            safe = keywords.get("weights_only")
            if name == ("torch", "load") and not (isinstance(safe, ast.Constant) and safe.value):
                found.append("torch.load without weights_only")
            pickles = keywords.get("allow_pickle")
            if name == ("np", "load") and isinstance(pickles, ast.Constant) and pickles.value:
                found.append("np.load with pickles")
        shell = keywords.get("shell")
        if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
            found.append("shell")
    return found


CODE = [path for folder in ("meal", "stages", "networks") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("path", sorted(CODE))
def test_no_code_executes_what_it_reads(path: Path) -> None:
    assert forbidden(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')", "pickle.load(f)", "yaml.load(f)", "os.system('x')", "torch.load(f)",
        "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)",
        "subprocess.run('x', shell=True)",
    ],
)  # fmt: skip
def test_the_scan_finds_what_it_looks_for(code: str) -> None:
    assert len(forbidden(ast.parse(code))) == 1
