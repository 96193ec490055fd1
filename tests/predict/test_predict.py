"""`meal predict`: files in, classes out, with what is wrong said and nothing heavy imported."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from meal.cli.main import app
from meal.data.prepared import Prepared
from meal.data.stores import FileStore
from meal.export.bundle import export
from meal.predict.card import Input
from meal.predict.files import _AHEAD, list_images, predict_files
from meal.predict.session import OnnxStudent
from tests.conftest import ROOT
from tests.export.conftest import config, finished, pixels
from tests.files import as_bytes, picture


@pytest.fixture
def exported(data: Prepared, tmp_path: Path) -> tuple[Path, np.ndarray]:
    export(config(), finished(data), tmp_path / "export")
    return tmp_path / "export", pixels(data)


def write_images(folder: Path, images: np.ndarray) -> list[Path]:
    folder.mkdir(parents=True)
    paths = [folder / f"{k:03d}.png" for k in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[:, :, 0]).save(path)
    return paths


def predict(exported: Path, *arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(
        app, ["predict", "--model", str(exported), *map(str, arguments)], catch_exceptions=False
    )
    return result.exit_code, result.stdout, result.stderr


def test_folders_and_files_in_every_format(
    exported: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    folder, images = exported
    paths = write_images(tmp_path / "images" / "deep", images)
    expected = OnnxStudent(folder).probabilities(images)
    status, out, err = predict(folder, tmp_path / "images", "--format", "json", "--top", "2")
    assert (status, err) == (0, "")
    rows = json.loads(out)
    assert [row["file"] for row in rows] == [str(path) for path in paths]
    names = ("left", "middle", "right")
    for row, own in zip(rows, expected, strict=True):
        assert [each["class"] for each in row["predictions"]] == [
            names[k] for k in np.argsort(-own)[:2]
        ]
        assert row["predictions"][0]["probability"] == pytest.approx(own.max(), abs=1e-5)
    table = predict(folder, paths[0])[1]
    assert table.startswith(f"{str(paths[0])[:60]}") and table.count("%") == 3
    rows_ = list(csv.DictReader(io.StringIO(predict(folder, *paths[:2], "--format", "csv")[1])))
    assert len(rows_) == 6 and set(rows_[0]) == {"file", "rank", "class", "probability"}


def test_bad_files_are_reported_and_do_not_stop_the_others(
    exported: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    folder, images = exported
    paths = write_images(tmp_path / "images", images[:3])
    (tmp_path / "images" / "bad.png").write_bytes(paths[0].read_bytes()[:60])
    (tmp_path / "images" / "notes.txt").write_text("not an image, and not asked for")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    asked = [tmp_path / "images", tmp_path / "none.png", tmp_path / "empty", tmp_path / "pipe.png"]
    status, out, err = predict(folder, *asked, "--format", "json")
    assert status == 1 and len(json.loads(out)) == 3
    lines = err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    for name, words in (
        ("bad.png", ""),
        ("none.png", "No such file"),
        ("empty", "holds no images"),
        ("pipe.png", "not a regular file"),
    ):
        assert any(name in line and words in line for line in lines), name
    assert lines[-1] == "error: 4 of 7 files could not be read"


def test_links_and_huge_files_do_not_stop_the_others(
    exported: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    folder, images = exported
    write_images(tmp_path / "images", images[:2])
    (tmp_path / "images" / "self").symlink_to(".")
    (tmp_path / "images" / "gone").symlink_to("nowhere")
    with (tmp_path / "images" / "huge.png").open("wb") as file:
        file.truncate(10 * 2**40)  # sparse: ten terabytes
    status, out, err = predict(folder, tmp_path / "images", "--format", "json")
    assert status == 1 and len(json.loads(out)) == 2
    for words in ("already been read", "dangling symlink", "huge.png: larger than 512 MiB"):
        assert words in err, err


def test_decoding_in_threads_leaves_the_warnings_of_the_process_alone(
    exported: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    folder, images = exported
    paths = write_images(tmp_path / "images", images) * 20
    before = list(warnings.filters)
    assert sum(1 for _ in predict_files(OnnxStudent(folder), paths)) == 600
    assert list(warnings.filters) == before


@pytest.mark.parametrize(("channels", "side", "size"), [(3, 20, 16), (1, 16, 16), (1, 20, 16)])
def test_pixels_are_those_of_the_pipeline(
    channels: int, side: int, size: int, tmp_path: Path
) -> None:
    contents: Sequence[bytes] = [
        as_bytes(picture(k, size=(40 + k, 32)).convert("RGB" if channels == 3 else "L"), form)
        for k, form in enumerate(("PNG", "JPEG", "TIFF"))
    ]
    kinds = [("path", "S20"), ("size", "<i8"), ("sha256", "u1", 32)]
    index = np.empty(len(contents), kinds)
    for k, content in enumerate(contents):
        (tmp_path / str(k)).write_bytes(content)
        digest = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
        index[k] = (str(k).encode(), len(content), digest)
    stored = FileStore(tmp_path, index, side, channels, 0).fetch(torch.arange(len(contents)))
    border = (side - size) // 2
    inputs = Input(side, size, channels, (0.5,) * channels, (0.5,) * channels, "uint8")
    for content, expected in zip(contents, stored.numpy(), strict=True):
        cut = expected[border : border + size, border : border + size]
        assert np.array_equal(inputs.pixels(content), cut)


def test_a_colour_image_becomes_grey_for_a_grey_student() -> None:
    red = as_bytes(Image.new("RGB", (16, 16), (255, 0, 0)))
    inputs = Input(16, 16, 1, (0.5,), (0.5,), "uint8")
    assert np.unique(inputs.pixels(red)).tolist() == [76]  # 0.299 * 255


def test_nothing_heavy_is_imported(exported: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder, images = exported
    (path, *_) = write_images(tmp_path / "images", images[:1])
    code = (
        "import sys; from meal.cli.main import app\n"
        f"sys.argv = ['meal', 'predict', '--model', {str(folder)!r}, {str(path)!r}]\n"
        "try: app()\n"
        "finally: print(sorted({'torch', 'timm', 'dvc', 'pandas', 'yaml'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]", result.stdout


def test_only_a_few_images_are_in_memory(
    exported: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, images = exported
    paths = write_images(tmp_path / "images", images) * 30
    decoded = 0
    usual = Input.pixels

    def counted(self: Input, content: bytes) -> np.ndarray:
        nonlocal decoded
        decoded += 1
        return usual(self, content)

    monkeypatch.setattr(Input, "pixels", counted)
    for seen, _ in enumerate(predict_files(OnnxStudent(folder), paths)):
        assert decoded - seen <= 2 * _AHEAD
    assert decoded == 900


def test_a_folder_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    status, _, err = predict(tmp_path, tmp_path)
    assert status == 1 and "model.json" in err and len(err.splitlines()) == 1


def test_control_characters_never_reach_the_terminal(
    exported: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    folder, images = exported
    (path,) = write_images(tmp_path / "images", images[:1])
    path.rename(path.with_name("a\x1b[31m\n.png"))
    (tmp_path / "images" / "b\x07.png").write_bytes(b"no")
    _, out, err = predict(folder, tmp_path / "images")
    assert "\x1b" not in out + err and "\x07" not in out + err
    assert len(out.splitlines()) == 1 and "\\x1b[31m\\n.png" in out


def test_a_missing_folder_is_named_beside_the_images_of_others(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(as_bytes(picture()))
    found, faults = list_images([tmp_path / "gone", tmp_path])
    assert found == [tmp_path / "one.png"] and faults[0].path == tmp_path / "gone"
