"""Published datasets: miniature files in the real formats, read by torchvision's own classes."""

from __future__ import annotations

import http.server
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100, SVHN

from meal.core.errors import UserError
from meal.datasets.raw import RawImages
from meal.datasets.registry import DATASETS
from meal.prepare.preparation import prepare
from meal.prepare.settings import PrepareSlice
from tests.files import held_out, md5, write_cifar, write_stl10, write_svhn


def read(name: str, root: Path | None) -> RawImages:
    raw = DATASETS[name].read(root)
    assert isinstance(raw, RawImages)
    return raw


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for downloads outside the project's folder, which is the current one."""
    (tmp_path / "project").mkdir()
    (tmp_path / "files").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "files"


@pytest.mark.parametrize(("name", "dataset"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
@pytest.mark.parametrize("form", ["archive", "unpacked"])
def test_cifar_from_its_archive_and_from_torchvisions_folder(
    name: str, dataset: Any, form: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = write_cifar(elsewhere, dataset, monkeypatch)
    if form == "unpacked":
        (elsewhere / "made" / dataset.base_folder).rename(elsewhere / dataset.base_folder)
        (elsewhere / dataset.filename).unlink()
    before = sorted(elsewhere.iterdir())
    raw = read(name, elsewhere)
    assert np.array_equal(raw.train_images, train) and np.array_equal(held_out(raw)[0], test)
    classes = DATASETS[name].classes
    assert classes and raw.train_labels.tolist() == [k % classes for k in range(50)]
    assert raw.classes[3] == "class 3" and len(raw.classes) == classes
    assert sorted(elsewhere.iterdir()) == before  # nothing was unpacked into it


def test_a_changed_cifar_batch_is_not_read(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are pickles: torchvision reads only those with the published checksum."""
    write_cifar(elsewhere, CIFAR10, monkeypatch)
    base = elsewhere / "made" / CIFAR10.base_folder
    evil = b"cos\nsystem\n(S'touch %s'\ntR." % str(elsewhere / "harm").encode()
    (base / "data_batch_1").write_bytes(evil)
    base.rename(elsewhere / CIFAR10.base_folder)
    with pytest.raises(UserError, match=r"CIFAR-10 in .* cannot be read.*cs\.toronto\.edu"):
        read("cifar10", elsewhere)
    assert not (elsewhere / "harm").exists()


@pytest.mark.parametrize("extra", [False, True])
def test_svhn_with_and_without_its_extra_set(
    extra: bool, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_svhn(elsewhere, monkeypatch, [("train", 30), ("extra", 40), ("test", 20)])
    raw = read("svhn_extra" if extra else "svhn", elsewhere)
    assert np.array_equal(raw.train_images, made["train"])
    assert (raw.extra_images is not None) == (raw.extra_labels is not None) == extra
    if raw.extra_images is not None and raw.extra_labels is not None:
        assert np.array_equal(raw.extra_images, made["extra"])
        assert raw.extra_labels.tolist() == [k % 10 for k in range(40)]
    assert np.array_equal(held_out(raw)[0], made["test"])
    assert held_out(raw)[1].tolist() == [k % 10 for k in range(20)]
    assert raw.classes == tuple("0123456789")


def test_a_truncated_mat_file_is_named(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svhn(elsewhere, monkeypatch, [("train", 30), ("test", 20)])
    path = elsewhere / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(UserError, match=r"SVHN in .* cannot be read.*ufldl\.stanford\.edu"):
        read("svhn", elsewhere)


def test_a_truncated_archive_is_named(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(elsewhere, CIFAR10, monkeypatch)
    path = elsewhere / CIFAR10.filename
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz cannot be unpacked"):
        read("cifar10", elsewhere)


@pytest.mark.parametrize("escape", ["../../escaped", "/tmp/meal-escaped", "link"])
def test_an_archive_cannot_write_outside_its_folder(
    escape: str, elsewhere: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (elsewhere / "content").write_text("harm")
    with tarfile.open(elsewhere / CIFAR10.filename, "w:gz") as archive:
        if escape == "link":  # a link to a folder outside, and a file through it
            member = tarfile.TarInfo("way")
            member.type, member.linkname = tarfile.SYMTYPE, str(outside)
            archive.addfile(member)
            archive.add(elsewhere / "content", "way/harm")
        else:
            archive.add(elsewhere / "content", escape)
    with pytest.raises(UserError, match=r"cannot be (unpacked|read)"):
        read("cifar10", elsewhere)
    assert not list(outside.iterdir())
    assert not Path("/tmp/meal-escaped").exists()


class Server(http.server.SimpleHTTPRequestHandler):
    """Serve a folder, with the first two responses truncated: torchvision requests a file twice."""

    cut = 2

    def do_GET(self) -> None:
        if type(self).cut:
            type(self).cut -= 1
            path = Path(self.translate_path(self.path))
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            self.wfile.write(path.read_bytes()[:1000])
            return
        super().do_GET()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    monkeypatch.setattr(Server, "cut", 2)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *a: Server(*a, directory=str(tmp_path / "served"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


def test_a_truncated_download_starts_over(
    address: str, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEAL_DATA", str(elsewhere))
    train, _ = write_cifar(tmp_path / "served", CIFAR10, monkeypatch)
    monkeypatch.setattr(CIFAR10, "url", address + CIFAR10.filename)
    with pytest.raises(UserError, match="could not be downloaded"):
        read("cifar10", None)
    assert not (elsewhere / CIFAR10.filename).exists()  # nothing that looks complete
    assert np.array_equal(read("cifar10", None).train_images, train)
    assert md5(elsewhere / CIFAR10.filename) == CIFAR10.tgz_md5
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/")  # an existing file is not requested
    assert np.array_equal(read("cifar10", None).train_images, train)


def test_a_download_with_a_wrong_checksum_is_refused(
    address: str, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "cut", 0)
    write_svhn(tmp_path / "served", monkeypatch, [("train", 10), ("test", 10)])
    listed = {
        split: [address + name, name, "0" * 32] for split, (_, name, _) in SVHN.split_list.items()
    }
    monkeypatch.setattr(SVHN, "split_list", listed)
    with pytest.raises(UserError, match=r"SVHN: .*lacks train_32x32\.mat, test_32x32\.mat"):
        read("svhn", elsewhere)
    assert not (elsewhere / "train_32x32.mat").exists()


def test_a_server_that_stops_responding_times_out(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meal.datasets.download._TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/x")
        with pytest.raises(UserError, match=r"could not be downloaded .*timed out"):
            read("cifar10", elsewhere)


def test_nothing_is_downloaded_into_the_project(elsewhere: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root='files' lacks cifar-10-python\.tar\.gz"):
        read("cifar10", Path("files"))
    assert not list(Path().iterdir())


def test_stl10_brings_a_pool_without_labels(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_stl10(elsewhere, monkeypatch)
    raw = read("stl10", elsewhere)
    assert np.array_equal(raw.train_images, made["train"])
    assert raw.train_labels.tolist() == held_out(raw)[1].tolist() + held_out(raw)[1].tolist()
    assert np.array_equal(held_out(raw)[0], made["test"])
    assert raw.extra_images is not None and np.array_equal(raw.extra_images, made["pool"])
    assert raw.extra_labels is None and raw.classes[3] == "class 3"


@pytest.mark.parametrize(("labelled", "known"), [("all", 70), (24, 24)])
def test_the_extra_set_of_svhn_is_the_pool_if_labels_are_few(
    labelled: str | int, known: int, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_svhn(elsewhere, monkeypatch, [("train", 30), ("extra", 40), ("test", 20)])
    data = {"root": str(elsewhere), "labelled": labelled, "validation_fraction": 0.5}
    config = PrepareSlice.model_validate({"dataset": "svhn_extra", "data": data})
    made = prepare(config, elsewhere / "out")
    assert made.manifest["labels"] == {"train": known // 2, "validation": known - known // 2}
    assert made.count("train") == 70 - known // 2
