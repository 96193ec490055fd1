"""Teachers that come with weights: verified, reported, and refused if no better than chance."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from meal.core.digests import sha256
from meal.core.errors import UserError
from meal.data.prepared import Prepared
from meal.datasets import registry
from meal.datasets.raw import RawImages
from meal.datasets.registry import Dataset
from meal.models.factory import build
from meal.models.foreign import read_state
from meal.models.settings import WeightsFile
from meal.models.spec import NetworkSpec, specify
from meal.prepare.preparation import prepare
from meal.prepare.settings import PrepareSlice
from meal.supervised.chance import worse_than_chance
from meal.supervised.loading import load_teacher
from meal.supervised.settings import SupervisedSlice
from meal.views.pipelines import PlainPipeline
from tests.conftest import ROOT, tiny_images

CPU = torch.device("cpu")
VIEWS = {"seed": 0, "crop_padding": 2, "flip": False, "size": 25}


def teacher(network: dict[str, Any]) -> SupervisedSlice:
    return SupervisedSlice.model_validate(
        {"name": "known", "network": network, "views": VIEWS, "training": None}
    )


def fit_head(network: nn.Module, head: nn.Linear, data: Prepared) -> None:
    """Make a linear head predict the class with the nearest mean feature, among three classes."""
    features: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    with torch.no_grad():
        network.eval()(PlainPipeline.of(data, "train", CPU).plain(0, 96))
        labels, values = data.labels("train"), features[0].flatten(1)
        head.weight.zero_()
        head.bias.fill_(-1e6)
        for label in range(3):
            centre = values[labels == label].mean(dim=0)
            head.weight[label] = 2 * centre
            head.bias[label] = -centre.square().sum()
    hook.remove()


def saved(data: Prepared, folder: Path) -> WeightsFile:
    """The weights of a tiny network that knows the classes, saved as another trainer would."""
    network = build(NetworkSpec("tiny", 1.0, 1, 16, 3), seed=3)
    fit_head(network, network[5], data)  # type: ignore[index]
    path = folder / "known.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, path)
    return WeightsFile(file=str(path), sha256=sha256(path))


def test_a_loaded_teacher_is_verified_and_reported(
    data: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = teacher({"arch": "tiny", "weights": saved(data, tmp_path)})
    loaded = load_teacher(config, data, CPU)
    history = loaded.history
    assert history[0]["epoch"] == 0 and history[0]["validation_top1_error"] < 50
    assert f"known: loaded, {history[0]['validation_top1_error']:.2f}%" in capsys.readouterr().out
    network = build(loaded.spec).eval()
    network.load_state_dict(loaded.state)
    predicted = network(PlainPipeline.of(data, "validation", CPU).plain(0, 24)).argmax(dim=1)
    wrong = float((predicted != data.labels("validation")).float().mean())
    assert 100 * wrong == pytest.approx(history[0]["validation_top1_error"], abs=1e-3)


def test_a_teacher_no_better_than_chance_is_an_error(data: Prepared, tmp_path: Path) -> None:
    network = build(NetworkSpec("tiny", 1.0, 1, 16, 3), seed=3)
    fit_head(network, network[5], data)  # type: ignore[index]
    head = network[5]  # type: ignore[index]
    head.weight.data = head.weight.data[[1, 2, 0]]  # classes in a different order
    head.bias.data = head.bias.data[[1, 2, 0]]
    torch.save(network.state_dict(), tmp_path / "w.pt")
    weights = {"file": str(tmp_path / "w.pt"), "sha256": sha256(tmp_path / "w.pt")}
    with pytest.raises(UserError, match=r"networks.known.weights: .* than chance .*order"):
        load_teacher(teacher({"arch": "tiny", "weights": weights}), data, CPU)


@pytest.fixture
def thousand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """The tiny data, with its three classes among a thousand."""
    names = tuple(f"class {number}" for number in range(1000))

    def read(root: Path | None) -> RawImages:
        return RawImages(*tiny_images(120, 0), *tiny_images(30, 1), names)

    monkeypatch.setitem(registry.DATASETS, "thousand", Dataset("thousand", read, flip=False))
    config = {"dataset": "thousand", "data": {"validation_fraction": 0.2}}
    return prepare(PrepareSlice.model_validate(config), tmp_path / "thousand")


def test_pretrained_weights_come_with_their_input(
    thousand: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the hub's file is where torchvision looks for its downloads."""
    from torchvision.models import get_model, get_model_weights

    config = teacher({"arch": "torchvision/mobilenet_v3_small", "weights": "pretrained"})
    made = specify(config.network, thousand)
    assert made.inputs is not None
    assert (made.inputs.size, made.inputs.channels) == (224, 3)
    assert made.inputs.mean == pytest.approx((0.485, 0.456, 0.406))
    network = build(made, seed=0)
    fit_head(network, network.inner.classifier[3], thousand)  # type: ignore[union-attr, index, arg-type]
    name = get_model_weights("mobilenet_v3_small").DEFAULT.url.rsplit("/", 1)[-1]
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(network.inner.state_dict(), folder / name)  # type: ignore[union-attr]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert get_model("mobilenet_v3_small", weights="DEFAULT") is not None
    history = load_teacher(config, thousand, CPU).history
    assert history[0]["validation_top1_error"] < 50


HUB = """
import sys
import torch
from meal.models.settings import Network
from meal.models.hub import published_state
network = Network(arch="timm/test_vit.r160_in1k", weights="pretrained")
state = published_state(network.arch, 160, {})
assert float(state["norm.bias"].sum()) == 64 * 7.0, state["norm.bias"]
"""


@pytest.mark.slow
def test_timms_pretrained_weights_come_from_its_hub(tmp_path: Path) -> None:
    """Another stand-in, in the layout of the hub's own cache; nothing uses the network."""
    import timm
    from safetensors.torch import save_file

    network = timm.create_model("test_vit.r160_in1k")
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    state["norm.bias"] = torch.full_like(state["norm.bias"], 7.0)
    repository = tmp_path / "models--timm--test_vit.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("1234")
    (repository / "snapshots" / "1234").mkdir(parents=True)
    save_file(state, repository / "snapshots" / "1234" / "model.safetensors")
    environment = {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", HUB]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    shutil.rmtree(repository)
    failed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "its pretrained weights are not available" in failed.stderr.splitlines()[-1]
    assert np.isfinite(float(state["norm.bias"].sum()))


def test_a_pretrained_head_for_other_classes_is_an_error(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    config = teacher({"arch": "torchvision/squeezenet1_1", "weights": "pretrained"})
    with pytest.raises(UserError, match="has 1000 classes, but the dataset has 3"):
        load_teacher(config, data, CPU)


@pytest.mark.parametrize(
    ("counts", "error", "refused"),
    [
        ((2, 2), 0.0, False),  # too few images for anything to be clearly better
        ((2, 2), 50.0, True),
        ((95, 5), 0.0, False),
        ((95, 5), 5.0, True),
        ((450, 450), 49.0, True),
        ((450, 450), 40.0, False),
        ((8, 0), 0.0, False),
    ],
)
def test_a_network_that_is_better_than_a_constant_is_not_refused_for_want_of_images(
    counts: tuple[int, int], error: float, refused: bool
) -> None:
    labels = np.repeat([0, 1], counts)
    assert (worse_than_chance(error, labels) is not None) is refused


def test_weights_from_common_trainers_are_unwrapped_and_broken_ones_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        torch.save({"model_state_dict": {f"{prefix}head.weight": torch.ones(2)}}, path)
        assert list(read_state(path)) == ["head.weight"]
    torch.save({"head.weight": torch.tensor([1.0, torch.nan])}, path)
    with pytest.raises(UserError, match=r"head\.weight has values that are not finite"):
        read_state(path)
    with pytest.warns(FutureWarning, match=r"torch\.jit\.script"):
        torch.jit.script(nn.Linear(1, 1)).save(path)
    with pytest.raises(UserError, match="is a TorchScript archive; save its state_dict"):
        read_state(path)
