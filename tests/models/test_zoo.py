from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from meal.core.errors import UserError
from meal.evaluation.costs import cost_metrics, count
from meal.models.blocks import assign_blocks, pool_deterministic
from meal.models.checkpoint import load, save
from meal.models.factory import build, with_blocks
from meal.models.spec import NetworkSpec
from meal.models.strides import subsample_first
from meal.models.zoo.registry import ZOO
from meal.models.zoo.shake_shake import mix

# G multiply-adds and M parameters in the official implementation, at 32x32 and 10 classes.
OFFICIAL = {
    "vgg11": (0.153, 9.231),
    "vgg16": (0.313, 14.73),
    "vgg19": (0.398, 20.04),
    "resnet18": (0.555, 11.17),
    "preact_resnet18": (0.555, 11.17),
    "densenet": (2.363, 10.96),
    "mobilenet": (0.0464, 3.217),
    "dpn92": (2.042, 34.23),
    "googlenet": (1.522, 6.166),
    "resnext29": (1.409, 9.129),
}


@pytest.mark.parametrize("arch", OFFICIAL)
def test_costs_match_the_official_networks(arch: str) -> None:
    cost = count(NetworkSpec(arch, 1.0, 3, 32, 10))
    macs, parameters = OFFICIAL[arch]
    assert cost.macs / 1e9 == pytest.approx(macs, rel=0.05)
    assert cost.parameters / 1e6 == pytest.approx(parameters, rel=0.05)


def test_the_cost_of_the_tiny_network_by_hand() -> None:
    cost = count(NetworkSpec("tiny", 1.0, 1, 16, 3))
    convolutions = 9 * (1 * 8 * 256 + 8 * 8 * 64 + 8 * 8 * 16)
    assert cost.macs == convolutions + 8 * 3
    assert cost.parameters == 9 * (8 + 64 + 64) + 3 * 16 + 8 * 3 + 3
    assert cost_metrics(cost, {"a": cost, "b": cost})["ensemble_macs"] == 2 * cost.macs


@pytest.mark.parametrize(("arch", "parameters"), [("2x32d", 2.9), ("2x96d", 26.2)])
def test_shake_shake_has_the_published_parameters(arch: str, parameters: float) -> None:
    cost = count(NetworkSpec(f"shake_shake26_{arch}", 1.0, 3, 32, 10))
    assert cost.parameters / 1e6 == pytest.approx(parameters, rel=0.02)


def test_branches_are_mixed_per_image_forward_and_backward() -> None:
    first = torch.full((6, 2, 3, 3), 1.0, requires_grad=True)
    second = torch.full((6, 2, 3, 3), 3.0, requires_grad=True)
    assert torch.equal(mix(first, second, training=False), torch.full((6, 2, 3, 3), 2.0))
    torch.manual_seed(0)
    mixed = mix(first, second, training=True)
    mixed.sum().backward()
    assert first.grad is not None and second.grad is not None
    forward = (3 - mixed.detach()) / 2  # the weight of the first branch
    for weights in (forward, first.grad):
        assert torch.equal(weights, weights[:, :1, :1, :1].expand_as(weights))  # one per image
        assert len(weights[:, 0, 0, 0].unique()) == 6
        assert float(weights.min()) >= 0 and float(weights.max()) <= 1
    assert not torch.allclose(forward, first.grad)
    assert torch.allclose(first.grad + second.grad, torch.ones_like(mixed))


@pytest.mark.parametrize("arch", [*OFFICIAL, "shake_shake26_2x32d"])
@pytest.mark.parametrize(("size", "channels"), [(16, 1), (28, 1), (32, 3), (64, 3)])
def test_every_size_gives_logits_and_three_blocks(arch: str, size: int, channels: int) -> None:
    spec = NetworkSpec(arch, 1.0, channels, size, 7)
    with torch.device("meta"):
        network = with_blocks(build(spec), spec, 3)
        logits, blocks = network(torch.empty(2, channels, size, size))
    assert logits.shape == (2, 7)
    assert {block: tuple(values.shape) for block, values in blocks.items()} == {
        1: (2, 16),
        2: (2, 16),
        3: (2, 16),
    }


@pytest.mark.parametrize("arch", [arch for arch, entry in ZOO.items() if entry.scales])
def test_width_scales_the_cost(arch: str) -> None:
    whole, half = (count(NetworkSpec(arch, width, 3, 32, 10)) for width in (1.0, 0.5))
    assert 0.2 < half.macs / whole.macs < 0.35


def test_subsampling_instead_of_striding_changes_no_value() -> None:
    narrow = nn.Sequential(nn.Conv2d(8, 4, 1, stride=2), nn.Conv2d(4, 2, 3, stride=2))
    usual = copy.deepcopy(narrow)
    subsample_first(narrow)
    assert [conv.stride for conv in narrow] == [(1, 1), (2, 2)]
    assert narrow.state_dict().keys() == usual.state_dict().keys()
    images = torch.randn(3, 8, 15, 15)
    logits = [network(images) for network in (narrow, usual)]
    assert torch.allclose(logits[0], logits[1], atol=1e-6)
    for values in logits:
        values.square().sum().backward()
    for own, other in zip(narrow.parameters(), usual.parameters(), strict=True):
        assert own.grad is not None and other.grad is not None
        assert torch.allclose(own.grad, other.grad, rtol=1e-4, atol=1e-5)
    assert torch.allclose(copy.deepcopy(narrow)(images), logits[0])  # weight averaging copies


def test_narrow_networks_train_without_crashing() -> None:
    """In a separate process, because the failure was a crash by a signal."""
    script = """
import torch
from meal.models.spec import NetworkSpec
from meal.models.factory import build
for width, size, batch in ((0.125, 64, 8), (0.07, 16, 43)):
    network = build(NetworkSpec("resnet18", width, 3, size, 10)).train()
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    for _ in range(30):
        network(images).sum().backward()
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_the_block_rule() -> None:
    assert assign_blocks(levels=4, blocks=3) == {1: 2, 2: 3, 3: 4}
    assert assign_blocks(levels=3, blocks=3) == {1: 1, 2: 2, 3: 3}
    assert assign_blocks(levels=12, blocks=3) == {1: 4, 2: 8, 3: 12}
    assert assign_blocks(levels=2, blocks=3) == {1: 1, 3: 2}  # blocks 2 and 3 share a level
    assert assign_blocks(levels=1, blocks=3) == {3: 1}
    assert assign_blocks(levels=0, blocks=3) == {}


@pytest.mark.parametrize("arch", ["tiny", *OFFICIAL])
def test_blocks_do_not_change_the_logits(arch: str) -> None:
    spec = NetworkSpec(arch, 1.0, 1, 16, 3)
    network = build(spec).eval()
    images = torch.randn(2, 1, 16, 16)
    logits, _ = with_blocks(network, spec, 3)(images)
    assert torch.allclose(logits, network(images), atol=1e-5)


def test_an_aligned_block_is_the_pooled_channel_mean() -> None:
    spec = NetworkSpec("tiny", 1.0, 1, 16, 3)
    network = build(spec).eval()
    assert isinstance(network, nn.Sequential)
    images = torch.randn(12, 1, 16, 16)
    _, blocks = with_blocks(network, spec, 3)(images)
    features = network[0](images)
    for level in (1, 2, 3):
        expected = torch.nn.functional.adaptive_avg_pool2d(features.mean(dim=1), 4).flatten(1)
        assert torch.allclose(blocks[level], expected, atol=1e-6)
        features = network[level](features) if level < 3 else features


@pytest.mark.parametrize("size", [4, 7, 8, 14, 15, 28])
def test_deterministic_pooling_equals_adaptive_pooling(size: int) -> None:
    plane = torch.randn(3, size, size + 1, dtype=torch.float64)
    expected = torch.nn.functional.adaptive_avg_pool2d(plane, 4)
    assert torch.allclose(pool_deterministic(plane), expected)


def test_the_seed_decides_the_weights_and_the_global_generator_is_untouched() -> None:
    spec = NetworkSpec("tiny", 1.0, 1, 16, 3)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, again, other = build(spec, 5), build(spec, 5), build(spec, 6)
    assert torch.equal(torch.rand(3), expected)
    weights = [network.state_dict()["0.0.weight"] for network in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_weights_survive_saving_and_loading(tmp_path: Path) -> None:
    spec = NetworkSpec("tiny", 1.0, 1, 16, 3)
    network = build(spec, 5)
    save(tmp_path / "net", spec, network.state_dict())
    loaded = load(tmp_path / "net")
    assert loaded.spec == spec
    assert not loaded.network.training
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value), name


@pytest.mark.parametrize("name", ["weights.safetensors", "network.json"])
def test_damaged_weights_are_never_loaded(name: str, tmp_path: Path) -> None:
    spec = NetworkSpec("tiny", 1.0, 1, 16, 3)
    save(tmp_path / "net", spec, build(spec).state_dict())
    path = tmp_path / "net" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged|cannot be read|holds no network"):
        load(tmp_path / "net")
