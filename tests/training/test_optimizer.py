"""Optimizers: hand-computed steps, weight decay by kind, clipping, rates by depth."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from meal.models.factory import build
from meal.models.spec import InputSpec, NetworkSpec
from meal.training.optimizer import GroupOptimizer, ParameterGroup, layer_scales
from meal.training.settings import Optimisation


def stepped(
    module: nn.Module, gradient: float, layer_decay: float = 1.0, **settings: Any
) -> dict[str, torch.Tensor]:
    """How the parameters change in the first step, if all gradients are equal."""
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimisation = Optimisation.model_validate({"schedule": "constant", **settings})
    optimizer = GroupOptimizer(ParameterGroup(module, optimisation, layer_decay))
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step(0, steps_per_epoch=1, epochs=1)
    return {name: value.detach() - before[name] for name, value in module.named_parameters()}


def test_sgd_with_nesterov_momentum_by_hand() -> None:
    layer = nn.Linear(2, 1, bias=False)
    weight = layer.weight.detach().clone()
    moved = stepped(layer, 3.0, lr=0.1, momentum=0.9, weight_decay=0.5)["weight"]
    assert torch.allclose(moved, -0.1 * 1.9 * (3 + 0.5 * weight), atol=1e-6)


def test_adamw_decays_apart_from_the_gradient() -> None:
    layer = nn.Linear(2, 1, bias=False)
    weight = layer.weight.detach().clone()
    moved = stepped(layer, 3.0, optimizer="adamw", lr=0.1, weight_decay=0.5)["weight"]
    # Its first step is the rate in the direction of the gradient, whatever the gradient's size.
    assert torch.allclose(moved, -0.1 * 0.5 * weight - 0.1, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "sgd without momentum", "adamw"])
def test_steps_are_those_of_torch_and_resume_from_the_saved_state(optimizer: str) -> None:
    """Bit for bit, also if a parameter has no gradient in the first step."""
    ours, theirs = (nn.Linear(3, 2), nn.Linear(3, 2))
    theirs.load_state_dict(ours.state_dict())
    options: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.01, "schedule": "constant"}
    if optimizer == "adamw":
        options["optimizer"] = optimizer
        reference: Any = torch.optim.AdamW(theirs.parameters(), 0.1, weight_decay=0.01)
    else:
        momentum = 0.0 if optimizer.endswith("without momentum") else 0.9
        options |= {"momentum": momentum, "nesterov": bool(momentum)}
        reference = torch.optim.SGD(
            theirs.parameters(), 0.1, momentum, weight_decay=0.01, nesterov=bool(momentum)
        )
    group = ParameterGroup(ours, Optimisation.model_validate(options))
    running = GroupOptimizer(group)
    for step in range(4):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine) if step or mine.ndim == 1 else None
            other.grad = None if mine.grad is None else mine.grad.clone()
        running.step(step, steps_per_epoch=4, epochs=1)
        reference.step()
        resumed = GroupOptimizer(group)
        resumed.load_state_dict(running.state_dict())
        running = resumed
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(mine, other)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_norms_and_biases_can_be_spared_from_decay(optimizer: str) -> None:
    options: dict[str, Any] = {"optimizer": optimizer, "lr": 0.1, "weight_decay": 0.5}
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    moved = stepped(network, 0.0, decay_norms=False, **options)
    assert {name for name, by in moved.items() if by.any()} == {"0.weight", "2.weight"}
    everything = stepped(network, 0.0, **options)
    assert {name for name, by in everything.items() if by.any()} == {*moved} - {"1.bias"}


def test_gradients_are_clipped_to_a_norm_over_the_whole_group() -> None:
    plain: dict[str, Any] = {"lr": 1.0, "momentum": 0.0, "nesterov": False}
    moved = stepped(nn.Linear(3, 4), 2.0, clip_norm=0.5, **plain)
    assert sum(by.square().sum() for by in moved.values()) ** 0.5 == pytest.approx(0.5, rel=1e-4)
    free = stepped(nn.Linear(3, 4), 0.01, clip_norm=0.5, **plain)
    assert torch.allclose(free["weight"], torch.full((4, 3), -0.01), atol=1e-6)


def test_rates_decay_by_timms_layers() -> None:
    network = timm.create_model("test_resnet.r160_in1k", num_classes=3)
    scales = layer_scales(network, 0.5)
    assert scales["fc.weight"] == 1
    ordered = [scales[f"{name}.weight"] for name in ("conv1.0", "layer1.0.conv1", "fc")]
    assert ordered == sorted(ordered) and ordered[0] < 0.1 and len(set(ordered)) == 3
    plain: dict[str, Any] = {"lr": 1.0, "momentum": 0.0, "nesterov": False}
    moved = stepped(network, 1.0, layer_decay=0.5, **plain)
    for name, by in moved.items():
        assert torch.allclose(by, torch.full_like(by, -scales[name]), atol=1e-5), name


def test_rates_decay_by_sub_module_for_other_networks_and_behind_an_adapter() -> None:
    inputs = InputSpec(32, 3, (0.5,) * 3, (0.5,) * 3, (0.1,), (0.3,))
    network = build(NetworkSpec("tiny", 1.0, 1, 16, 3, inputs=inputs))
    scales = layer_scales(network, 0.5)
    assert scales.keys() == dict(network.named_parameters()).keys()
    assert [scales[f"inner.{name}.weight"] for name in ("0.0", "1.1", "2.0", "5")] == [
        0.125, 0.25, 0.5, 1
    ]  # fmt: skip


def test_adamw_treats_complex_parameters_as_torch_does() -> None:
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1 + 2j, 3 - 1j]))

    ours, theirs = Complex(), Complex()
    reference = torch.optim.AdamW(theirs.parameters(), 0.1, weight_decay=0.0)
    theirs.weight.grad = torch.full_like(theirs.weight, 2 + 3j)
    options: dict[str, Any] = {"optimizer": "adamw", "lr": 0.1, "weight_decay": 0.0}
    group = ParameterGroup(ours, Optimisation.model_validate({"schedule": "constant", **options}))
    ours.weight.grad = theirs.weight.grad.clone()
    GroupOptimizer(group).step(0, steps_per_epoch=1, epochs=1)
    reference.step()
    assert torch.equal(ours.weight, theirs.weight)


def test_norms_belong_to_the_layer_before_them_and_blocks_count_one_by_one() -> None:
    scales = layer_scales(build(NetworkSpec("resnet18", 0.125, 1, 16, 3)), 0.5)
    names = ("conv1", "bn1", "layer1.0.conv1", "layer1.0.bn2", "layer1.1.conv2", "layer4.1.conv1")
    steps = [scales[f"{name}.weight"] for name in (*names, "fc")]
    assert steps == [0.5**9, 0.5**9, 0.5**8, 0.5**8, 0.5**7, 0.5, 1]
    vgg = layer_scales(build(NetworkSpec("vgg11", 0.125, 1, 16, 3)), 0.5)
    assert vgg["features.0.weight"] == vgg["features.1.bias"] == 0.5**8
