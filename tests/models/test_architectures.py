"""Networks from any source: their logits, blocks and input, and the errors they cause."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from meal.core.errors import UserError
from meal.data.prepared import Prepared
from meal.models.adapter import InputAdapter
from meal.models.architectures import check, own_digest
from meal.models.blocks import as_map, levels_of
from meal.models.checkpoint import load, save
from meal.models.factory import build, check_structure, with_blocks
from meal.models.settings import Network, NetworkSlice
from meal.models.spec import InputSpec, NetworkSpec, specify

VIT = {"patch_size": 4, "embed_dim": 24, "depth": 6, "num_heads": 2}
CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}


def spec(arch: str, size: int = 32, channels: int = 1, **changes: Any) -> NetworkSpec:
    return NetworkSpec(arch, 1.0, channels, size, 5, **changes)


@pytest.mark.parametrize(
    ("made", "levels"),
    [
        # A transformer's maps all have one size: each of its six layers is a level.
        (spec("timm/vit_tiny_patch16_224", options=VIT), {1: 1, 2: 3, 3: 5}),
        # Stages of 8, 4, 2 and 1 positions: two levels of 4x4 or more.
        (spec("timm/convnext_atto", options=CONVNEXT), {1: 0, 3: 1}),
        (spec("timm/resnet18", size=64), {1: 1, 2: 2, 3: 3}),
        (spec("networks.example:small_convnet", blocks=("stage1", "stage3")), {1: 0, 3: 1}),
        (spec("networks.example:small_convnet"), {1: 0, 2: 1, 3: 2}),
        (spec("torchvision/resnet18", size=64, channels=3), {1: 1, 2: 2, 3: 3}),
        # Channels last: stages of 8, 4, 2 and 1 positions, of which the first two are levels.
        (spec("torchvision/swin_t", channels=3), {1: 0, 3: 1}),
        # Tokens: twelve layers.
        (
            spec("torchvision/vit_b_16", size=64, channels=3, options={"image_size": 64}),
            {1: 3, 2: 7, 3: 11},
        ),
    ],
)
def test_blocks_are_found_in_any_network(made: NetworkSpec, levels: dict[int, int]) -> None:
    blocks = with_blocks(build(made), made, 3)
    assert blocks.block_levels == levels
    logits, values = blocks(torch.randn(3, *made.shape))
    assert logits.shape == (3, 5)
    assert {block: tuple(v.shape) for block, v in values.items()} == dict.fromkeys(levels, (3, 16))
    # Returning blocks does not change the network's logits.
    blocks.eval()
    images = torch.randn(2, *made.shape)
    assert torch.allclose(blocks(images)[0], blocks.network(images), atol=1e-6)


@pytest.mark.parametrize("arch", ["resnet18", "timm/resnet18", "networks.example:small_convnet"])
def test_a_network_can_be_wrapped_without_blocks(arch: str) -> None:
    made = spec(arch)
    blocks = with_blocks(build(made), made, 0).eval()
    images = torch.randn(2, *made.shape)
    logits, values = blocks(images)
    assert values == {} and torch.equal(logits, blocks.network(images))


def test_projected_blocks_have_one_value_per_channel() -> None:
    made = spec("networks.example:small_convnet")
    blocks = with_blocks(build(made), made, 3, "projected").eval()
    assert blocks.block_sizes == {1: 16, 2: 32, 3: 64}
    images = torch.randn(2, *made.shape)
    expected = blocks.network.stage1(images).mean(dim=(2, 3))  # type: ignore[operator]
    assert torch.allclose(blocks(images)[1][1], expected, atol=1e-6)


def test_levels_are_the_last_map_of_each_size_or_all_maps_if_they_have_one_size() -> None:
    assert levels_of([(16, 16), (16, 16), (8, 8), (4, 4), (2, 2)]) == [1, 2, 3]
    assert levels_of([(8, 8), (8, 8), (8, 8)]) == [0, 1, 2]
    assert levels_of([(2, 2), (2, 2)]) == []


def test_tokens_become_a_square_map() -> None:
    tokens = torch.arange(2 * 10 * 3.0).view(2, 10, 3)  # a class token and 3x3
    features = as_map(tokens)
    assert features.shape == (2, 3, 3, 3)
    assert torch.equal(features[1, :, 2, 0], tokens[1, 1 + 6])
    with pytest.raises(UserError, match="12 tokens are neither a square"):
        as_map(torch.zeros(1, 12, 3))


def test_an_adapter_replaces_one_normalisation_by_another() -> None:
    inputs = InputSpec(4, 3, (0.5, 0.4, 0.3), (0.2, 0.1, 0.3), (0.25,), (0.5,))
    pixels = torch.full((1, 1, 4, 4), 0.7)
    seen = InputAdapter(inputs)((pixels - 0.25) / 0.5)
    expected = [(0.7 - 0.5) / 0.2, (0.7 - 0.4) / 0.1, (0.7 - 0.3) / 0.3]
    assert torch.allclose(seen[0, :, 2, 1], torch.tensor(expected), atol=1e-5)
    larger = InputSpec(8, 3, (0.5,), (0.5,), (0.5,), (0.5,))
    assert InputAdapter(larger)(torch.randn(2, 1, 4, 4)).shape == (2, 3, 8, 8)


def test_a_network_with_its_own_input_survives_saving_and_loading(
    data: Prepared, tmp_path: Path
) -> None:
    network = NetworkSlice(arch="torchvision/resnet18", input={"size": 32})
    made = specify(network, data)
    assert made.inputs is not None
    assert (made.inputs.size, made.inputs.channels) == (32, 3)
    built = build(made, seed=1).eval()
    save(tmp_path / "net", made, built.state_dict())
    again = load(tmp_path / "net")
    images = torch.randn(2, *data.shape)
    assert again.spec == made and torch.equal(again.network(images), built(images))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"arch": "resnt18"}, "arch='resnt18': unknown; allowed: "),
        ({"arch": "timm/resnet81"}, "arch='timm/resnet81': unknown; nearest: .*resnet18"),
        ({"arch": "torchvision/resnet5"}, "unknown; nearest: .*resnet50"),
        ({"arch": "no_such_module:make"}, "your own networks belong in the folder networks/"),
        ({"arch": "networks.example:no_such"}, "networks.example has no function 'no_such'"),
        ({"arch": "tests.conftest:tiny_network"}, "belong in the folder networks/"),
        ({"arch": "timm/resnet18", "width": 0.5}, "width=0.5: timm/resnet18 supports only width 1"),
        ({"arch": "resnet18", "weights": "pretrained"}, "weights='pretrained': resnet18 has none"),
        ({"arch": "resnet18", "options": {"a": 1}}, "networks in the zoo take none"),
    ],
)
def test_a_network_that_cannot_be_built_is_an_error_before_anything_runs(
    network: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check(Network.model_validate(network))


def own_networks(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Create a project whose folder `networks` has a module `own`."""
    (folder / "networks").mkdir()
    (folder / "networks" / "__init__.py").touch()
    (folder / "networks" / "own.py").write_text(code)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    # Imported anew in this test, and not kept for the next: restored even if it was not there.
    for name in {name for name in sys.modules if name.partition(".")[0] == "networks"} | {
        "networks", "networks.own",
    }:  # fmt: skip
        monkeypatch.setitem(sys.modules, name, sys)
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    "arch", ["this:x", "outside:make", "networks:make", "networks..own:make", "networks.no:make"]
)
def test_a_module_outside_the_folder_networks_is_never_imported(
    arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_networks(tmp_path, monkeypatch, "")
    (tmp_path / "outside.py").write_text("raise SystemExit('imported')")
    before = set(sys.modules)
    with pytest.raises(UserError, match=r"folder networks/|there is no file networks"):
        check(Network(arch=arch))
    assert not {"this", "outside"} & (set(sys.modules) - before)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 7", "returns int, not a torch.nn.Module"),
        ("return nn.Sequential(nn.Flatten(), nn.LazyLinear(4))", r"returns \(2, 4\) for two"),
        ("return nn.Conv2d(7, 5, 1)", "does not take images of 32x32 pixels and 1 channel"),
        ("return nn.Linear(1, 5, nonsense=1)", "cannot be built with options {}: TypeError"),
        ("return {}['x']", r"options {}: KeyError: 'x' \(own.py, line 3\)"),
        ("return nn.LSTM(1, 5)", "does not take images of"),
        ("return nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(5))", "in place"),
        ("return nn.Sequential(nn.Flatten(), nn.LazyLinear(5), nn.Softmax(1))", "expected: logits"),
    ],
)  # fmt: skip
def test_an_invalid_network_of_the_users_own_is_an_error(
    body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"from torch import nn\ndef make(channels, classes, image_size):\n    {body}\n"
    own_networks(tmp_path, monkeypatch, code)
    with pytest.raises(UserError, match=message):
        check_structure(spec("networks.own:make"), "networks.mine")


@pytest.mark.parametrize("blocks", ["head", "nope"])
def test_blocks_without_feature_maps_are_an_error_that_names_the_network(blocks: str) -> None:
    taps = {"head": "5", "nope": "nope"}[blocks]
    with pytest.raises(UserError, match=r"^networks\.mine\.blocks[:=]"):
        check_structure(spec("tiny", blocks=(taps,)), "networks.mine")


def test_a_change_to_the_users_own_code_changes_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_networks(tmp_path, monkeypatch, "def make(): ...\n")
    before = own_digest("networks.own:make")
    (tmp_path / "networks" / "parts").mkdir()
    (tmp_path / "networks" / "parts" / "helper.py").write_text("x = 1\n")
    assert before != own_digest("networks.own:make")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.py").write_text("x = 1\n")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "networks" / "linked").symlink_to(tmp_path / "elsewhere")
    linked = own_digest("networks.own:make")
    (tmp_path / "elsewhere" / "far.py").write_text("x = 2\n")
    assert linked != own_digest("networks.own:make")
    assert own_digest("resnet18") is None and own_digest("timm/resnet18") is None


def test_a_missing_block_is_named() -> None:
    made = spec("networks.example:small_convnet", blocks=("stage1", "stage9"))
    with pytest.raises(UserError, match=r"blocks='stage9': .* are: stage1, stage2, stage3"):
        with_blocks(build(made), made, 3)


def test_the_seed_decides_the_random_weights() -> None:
    made = spec("timm/convnext_atto", options=CONVNEXT)
    one, same, other = (build(made, seed).state_dict() for seed in (1, 1, 2))
    key = "stages.0.blocks.0.conv_dw.weight"
    assert torch.equal(one[key], same[key]) and not torch.equal(one[key], other[key])
    assert isinstance(build(made), nn.Module)


def test_the_last_map_of_a_size_is_a_stages_and_not_a_branchs_inside_the_next() -> None:
    made = spec("torchvision/regnet_y_400mf", size=64, channels=3)
    blocks = with_blocks(build(made), made, 3).eval()
    images = torch.randn(1, *made.shape)
    network: Any = blocks.network
    stem = network.stem(images)
    first = network.trunk_output.block1(stem)
    second = network.trunk_output.block2(first)
    expected = [stem, first, second, network.trunk_output.block3(second)]
    found = blocks._features(images, None)[1]
    large = [value for value in found.values() if value.shape[-1] >= 4]
    for value, wanted in zip(large, expected, strict=True):
        assert torch.allclose(value, wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 8, 8, 24), (2, 24, 8, 8)])
def test_channels_may_be_first_or_last(shape: tuple[int, ...]) -> None:
    features = torch.randn(shape)
    expected = features.movedim(3, 1) if shape[-1] == 24 else features
    assert torch.equal(as_map(features), expected)


def test_a_single_mean_applies_to_all_three_channels(data: Prepared) -> None:
    network = NetworkSlice(
        arch="torchvision/resnet18", input={"size": 32, "mean": [0.5], "std": [0.2]}
    )
    made = specify(network, data)
    assert made.inputs is not None and made.inputs.channels == 3
    assert build(made).eval()(torch.randn(2, *data.shape)).shape == (2, 3)
