"""Weights from elsewhere: what is read, what is refused, and the error messages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from meal.core.digests import sha256
from meal.core.errors import UserError
from meal.models.checkpoint import load_state, training_steps
from meal.models.factory import build
from meal.models.foreign import locate, read_state
from meal.models.settings import WeightsFile
from meal.models.spec import NetworkSpec

SPEC = NetworkSpec("tiny", 1.0, 1, 16, 3)


def state() -> dict[str, Tensor]:
    return {k: v.contiguous() for k, v in build(SPEC, seed=5).state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("nest", ["net", "state_dict", "model", None])
@pytest.mark.parametrize("name", ["weights.pt", "weights.t7"])
def test_a_nested_state_is_unwrapped(nest: str | None, name: str, tmp_path: Path) -> None:
    whole = {nest: state(), "epoch": 7, "acc": 91.5} if nest else state()
    torch.save(whole, tmp_path / name)
    assert same(read_state(tmp_path / name), state())


def test_the_prefix_of_data_parallel_is_removed(tmp_path: Path) -> None:
    torch.save({"net": {f"module.{k}": v for k, v in state().items()}}, tmp_path / "w.pt")
    assert same(read_state(tmp_path / "w.pt"), state())


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    assert same(read_state(tmp_path / "w.safetensors"), state())


def test_foreign_weights_do_not_say_how_long_they_were_trained(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    torch.save(state(), tmp_path / "w.pt")
    save_file(state(), tmp_path / "odd.safetensors", {"steps": "many"})
    for name in ("w.safetensors", "w.pt", "odd.safetensors"):
        assert training_steps(tmp_path / name) is None


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.path}'",)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"net": state(), "extra": Hostile(tmp_path / "owned")}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="holds more than weights: loading it would run code"):
        read_state(tmp_path / "w.pt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04broken"])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_without_weights_is_an_error(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"w\.\w+ is not a weights file"):
        read_state(tmp_path / name)


def test_a_file_without_a_state_is_an_error(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="holds no network state, neither at the top level nor"):
        read_state(tmp_path / "w.pt")


def test_a_state_that_does_not_fit_is_listed_and_not_loaded() -> None:
    network = build(SPEC, seed=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    broken = state()
    head = next(name for name in broken if name.endswith("5.weight"))
    del broken["0.0.weight"]
    broken[head] = torch.zeros(10, 8)
    broken["surplus.weight"] = torch.zeros(1)
    with pytest.raises(UserError) as error:
        load_state(network, broken, "here")
    message = str(error.value)
    assert "missing: 0.0.weight" in message and "unexpected: surplus.weight" in message
    assert f"of another shape: {head} (10, 8) for (3, 8)" in message
    assert same(dict(network.state_dict()), before)


def test_a_checksum_is_compared(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    right = sha256(tmp_path / "w.safetensors")
    named = WeightsFile(file=str(tmp_path / "w.safetensors"), sha256=right)
    assert locate(named, "networks.a.weights") == tmp_path / "w.safetensors"
    wrong = WeightsFile(file=named.file, sha256="0" * 64)
    with pytest.raises(UserError, match=rf"networks.a.weights.sha256='0+': .* has {right}"):
        locate(wrong, "networks.a.weights")


def test_a_url_that_cannot_be_downloaded_is_a_one_line_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEAL_DATA", str(tmp_path))
    named = WeightsFile(url="https://localhost:9/w.pt", sha256="0" * 64)
    with pytest.raises(UserError, match=r"networks.a.weights.url='https://localhost:9/w.pt' can"):
        locate(named, "networks.a.weights")
    assert not list((tmp_path / "weights").iterdir())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"url": "http://a/w.pt", "sha256": "0" * 64}, "begins with https://"),
        ({"url": "https://[", "sha256": "0" * 64}, "begins with https://"),
        ({"url": "https://a/w.pt"}, "Field required"),
        ({"file": "w.pt", "sha256": "12"}, "expected the 64 digits"),
        ({"sha256": "0" * 64}, "give either a file or a url"),
        ({"file": "w", "url": "https://a", "sha256": "0" * 64}, "give either a file or a url"),
    ],
)
def test_weights_need_one_location_and_a_checksum(weights: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WeightsFile.model_validate(weights)
