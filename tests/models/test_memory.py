from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from meal.core.errors import UserError
from meal.models import memory
from meal.models.memory import check_memory
from meal.models.spec import InputSpec, NetworkSpec
from meal.models.trial import META, trial
from meal.models.zoo import registry as zoo
from meal.models.zoo.registry import Architecture

CPU = torch.device("cpu")


def test_what_a_network_needs_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear layer of 256 x 3: 771 weights; in training, four times that and its inputs."""

    def linear(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))

    monkeypatch.setitem(zoo.ZOO, "linear", Architecture(linear))
    spec = NetworkSpec("linear", 1.0, 1, 16, 3)
    for needed, batch in ((771 * 4, None), (4 * 771 * 4 + 10 * 256 * 4, 10)):
        monkeypatch.setattr(memory, "total_memory", lambda device, held=needed: held)
        check_memory(spec, CPU, batch)
        monkeypatch.setattr(memory, "total_memory", lambda device, held=needed - 1: held)
        with pytest.raises(UserError, match=r"linear at width 1 .* lower "):
            check_memory(spec, CPU, batch)


def test_a_network_too_large_for_the_machine_is_not_built() -> None:
    """ResNet-18 at 64 times its width has 180 GB of weights."""
    with pytest.raises(UserError, match=r"resnet18 at width 64 .* needs at least \d+\.\d GiB"):
        check_memory(NetworkSpec("resnet18", 64.0, 3, 32, 10), CPU, 128)


def test_activations_count_too() -> None:
    with pytest.raises(UserError, match="batch_size 65536"):
        check_memory(NetworkSpec("resnet18", 1.0, 3, 224, 10), CPU, 65536)


def test_only_small_networks_of_the_zoo_are_run() -> None:
    small = NetworkSpec("resnet18", 0.125, 1, 16, 10)
    enlarged = InputSpec(256, 3, (0.5,) * 3, (0.5,) * 3, (0.1,), (0.3,))
    assert trial(small)[1] == CPU
    for other in (
        replace(small, image_size=96),
        replace(small, width=16.0),
        replace(small, inputs=enlarged),
        replace(small, arch="networks.example:small_convnet", width=1.0),
    ):
        network, device = trial(other)
        assert device == META and next(network.parameters()).is_meta


def test_counting_imports_no_compiler() -> None:
    """Nor timm: on the meta device, nearly every operation would import the compiler."""
    code = """
import sys, torch
from meal.models.memory import check_memory
from meal.models.spec import NetworkSpec
from meal.models.zoo.registry import ZOO
for arch in ZOO:
    check_memory(NetworkSpec(arch, 1.0, 1, 16, 10), torch.device('cpu'), 64)
found = {'torch._dynamo', 'torchvision', 'timm'} & set(sys.modules)
assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], check=True)
