"""Networks that start from a backbone with a new head: what is loaded, what trains, what fails."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from meal.core.digests import sha256
from meal.core.errors import UserError
from meal.core.seeds import Purpose
from meal.core.work import WorkFolder
from meal.data.prepared import Prepared
from meal.models.factory import build
from meal.models.foreign import load_weights
from meal.models.settings import NetworkSlice
from meal.models.spec import NetworkSpec, specify
from meal.supervised.run import train_supervised
from meal.supervised.settings import SupervisedSlice
from meal.training.checkpoints import Checkpoints
from meal.training.contract import Trained

CPU = torch.device("cpu")
VIEWS = {"seed": 0, "crop_padding": 2, "flip": False, "size": 25}
KEY = "networks.tuned.weights"


def backbone(classes: int) -> dict[str, Tensor]:
    """A network for other classes, as another trainer would save it."""
    return dict(build(NetworkSpec("tiny", 1.0, 1, 16, classes), seed=9).state_dict())


def entry(folder: Path, state: dict[str, Tensor], **keys: Any) -> dict[str, Any]:
    """An entry under `networks` with these weights."""
    path = folder / "known.pt"
    torch.save(state, path)
    return {"arch": "tiny", "weights": {"file": str(path), "sha256": sha256(path)}, **keys}


def train(data: Prepared, folder: Path, network: dict[str, Any], **training: Any) -> Trained:
    settings = {"epochs": 3, "batch_size": 32, "lr": 0.1, **training}
    config = SupervisedSlice.model_validate(
        {"name": "tuned", "network": network, "views": VIEWS, "training": settings}
    )
    made = Checkpoints(WorkFolder(folder / "work", "teacher@tuned", {}))
    return train_supervised("teacher tuned", Purpose.TEACHER, config, data, CPU, made)


def loaded(data: Prepared, network: dict[str, Any]) -> nn.Module:
    config = NetworkSlice.model_validate(network)
    spec = specify(config, data)
    made = build(spec, seed=1)
    load_weights(made, spec, config, KEY)
    return made


@pytest.mark.parametrize("head", ["of other classes", "of the same classes", "missing"])
def test_everything_but_the_head_is_loaded(head: str, data: Prepared, tmp_path: Path) -> None:
    state = backbone(3 if head == "of the same classes" else 12)
    if head == "missing":
        state = {name: value for name, value in state.items() if not name.startswith("5.")}
    made = loaded(data, entry(tmp_path, state, head="new")).state_dict()
    new = build(NetworkSpec("tiny", 1.0, 1, 16, 3), seed=1).state_dict()
    for name, value in made.items():
        expected = new if name.startswith("5.") else state
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("fault", ["head", "backbone", "size"])
def test_a_file_that_does_not_fit_is_refused(fault: str, data: Prepared, tmp_path: Path) -> None:
    state, keys, message = backbone(12), {"head": "new"}, "missing: 1.0.weight"
    if fault == "head":  # without head: new, the head must fit
        keys, message = {}, r"of another shape: 5.bias \(12,\) for \(3,\)"
    elif fault == "backbone":
        del state["1.0.weight"]
    else:
        state["1.0.weight"] = torch.zeros(2, 2)
        message = "of another shape: 1.0.weight"
    with pytest.raises(UserError, match=f"{KEY}: .*does not fit the network; {message}"):
        loaded(data, entry(tmp_path, state, **keys))


def test_a_frozen_backbone_stays_as_it_is_and_the_head_learns(
    data: Prepared, tmp_path: Path
) -> None:
    state = backbone(12)
    network = entry(tmp_path, state, head="new")
    trained = train(data, tmp_path, network, frozen="backbone", epochs=8, lr=1.0)
    for name, value in trained.state.items():
        assert torch.equal(value, state[name]) == (not name.startswith("5.")), name
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
    assert trained.steps is None  # those behind the file are not known


def test_lower_layers_move_less_with_layer_decay(data: Prepared, tmp_path: Path) -> None:
    state = backbone(12)
    network = entry(tmp_path, state, head="new")
    moved = {}
    for decay in (1.0, 0.1):
        folder = tmp_path / str(decay)
        trained = train(data, folder, network, layer_decay=decay, weight_decay=0, epochs=1)
        change = {name: (trained.state[name] - state[name]).norm() for name in ("0.0.weight",)}
        moved[decay] = float(change["0.0.weight"])
    assert 0 < moved[0.1] < 0.1 * moved[1.0]


def test_published_weights_of_a_thousand_classes_get_a_new_head(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the hub's file is where torchvision looks for its downloads."""
    from torchvision.models import get_model, get_model_weights

    published = get_model("squeezenet1_1", weights=None).state_dict()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    name = get_model_weights("squeezenet1_1").DEFAULT.url.rsplit("/", 1)[-1]
    torch.save(published, folder / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    network = {"arch": "torchvision/squeezenet1_1", "weights": "pretrained", "head": "new"}
    made = loaded(data, {**network, "input": {"size": 64}}).state_dict()
    assert made["inner.classifier.1.weight"].shape[0] == 3
    assert torch.equal(made["inner.features.0.weight"], published["features.0.weight"])


def test_a_teacher_that_learns_nothing_is_a_warning(
    data: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        train(data, tmp_path, {"arch": "tiny"}, lr=1e-9, epochs=1)
    assert "teacher tuned: " in caplog.text
    assert (
        "not clearly better than chance (66.7%) on 24 images; likely causes: the learning rate"
        in caplog.text
    )


def test_label_smoothing_is_part_of_the_loss(data: Prepared, tmp_path: Path) -> None:
    """At a constant network, the smoothed loss of any label is at least the entropy of its mix."""
    free, smooth = (
        train(data, tmp_path / str(share), {"arch": "tiny"}, label_smoothing=share, epochs=8)
        for share in (0.0, 0.3)
    )
    mixed = torch.tensor([0.8, 0.1, 0.1])
    assert smooth.history[-1]["loss"] > -(mixed * mixed.log()).sum() > free.history[-1]["loss"]
