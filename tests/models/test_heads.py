"""Heads and backbones: what they are in networks of any source, and what freezing them does."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from meal.core.errors import UserError
from meal.evaluation.costs import Cost, count
from meal.models.factory import build
from meal.models.heads import freeze, head_names
from meal.models.spec import InputSpec, NetworkSpec
from meal.models.zoo import registry as zoo
from meal.models.zoo.registry import Architecture

ADAPTED = InputSpec(64, 3, (0.5,) * 3, (0.5,) * 3, (0.1,), (0.3,))


def spec(arch: str, **changes: Any) -> NetworkSpec:
    return NetworkSpec(arch, 1.0, **{"channels": 1, "image_size": 32, "classes": 7, **changes})


@pytest.mark.parametrize(
    ("arch", "heads"),
    [
        ("tiny", ["5"]),
        ("resnet18", ["fc"]),
        ("densenet", ["classifier"]),
        ("timm/test_vit", ["head"]),
        ("timm/test_convnext", ["head.fc"]),
        ("timm/test_efficientnet", ["classifier"]),
        ("timm/levit_128s", ["head.linear", "head_dist.linear"]),
        ("timm/crossvit_tiny_240", ["head.0", "head.1"]),
        ("torchvision/mobilenet_v3_small", ["inner.classifier.3"]),
        ("torchvision/squeezenet1_1", ["inner.classifier.1"]),
    ],
)
def test_the_head_is_what_changes_shape_with_the_number_of_classes(
    arch: str, heads: list[str]
) -> None:
    sized = {"image_size": 224} if "levit" in arch or "crossvit" in arch else {}
    options = {"options": {"img_size": 32}} if "test_vit" in arch else {}
    adapted = {"inputs": ADAPTED} if arch.startswith("torchvision") else {}
    found = head_names(spec(arch, **sized, **options, **adapted))
    assert [name for name in found if not name.endswith(".bn")] == heads


def test_a_layer_that_happens_to_have_as_many_channels_is_not_the_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build_own(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
        body = nn.Conv2d(channels, 7, 3)
        parts = {"head": nn.Linear(7, classes), "body": body}  # in this order
        return nn.ModuleDict(parts)

    monkeypatch.setitem(zoo.ZOO, "own", Architecture(build_own))
    assert head_names(spec("own")) == ["head"]


def test_networks_that_need_values_can_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code may read values while it builds a network, or while it runs."""

    class Reads(nn.Module):
        def __init__(self, channels: int, classes: int) -> None:
            super().__init__()
            self.rate = torch.linspace(0, 0.1, 3).tolist()[1]
            self.head = nn.Linear(channels, classes)

        def forward(self, images: Tensor) -> Tensor:
            pooled = images.mean(dim=(2, 3))
            return self.head(pooled / 10 if pooled.abs().max() > 1e6 else pooled)

    def build_own(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
        return Reads(channels, classes)

    monkeypatch.setitem(zoo.ZOO, "own", Architecture(build_own))
    assert head_names(spec("own")) == ["head"]
    assert count(spec("own")) == Cost(parameters=1 * 7 + 7, macs=1 * 7, bytes=4 * (1 * 7 + 7))


def test_all_but_the_head_can_be_frozen() -> None:
    made = build(spec("tiny", classes=3, inputs=ADAPTED))
    held = freeze(made, spec("tiny", classes=3, inputs=ADAPTED), "backbone", "teaching.frozen")
    trained = {name for name, value in made.named_parameters() if value.requires_grad}
    assert trained == {"inner.5.weight", "inner.5.bias"}
    norms = [module for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 3 and all(norm in held for norm in norms)


def test_sub_modules_can_be_frozen_by_name() -> None:
    own = spec("tiny", classes=3, inputs=ADAPTED)
    made = build(own)
    freeze(made, own, ["0", "2.0"], "teaching.frozen")
    frozen = {name for name, value in made.named_parameters() if not value.requires_grad}
    assert frozen == {"inner.0.0.weight", "inner.0.1.weight", "inner.0.1.bias", "inner.2.0.weight"}


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (["9"], "teaching.frozen='9': no such sub-module; those at the top level are: 0, 1, 2"),
        (["0", "1", "2", "5"], "nothing is left to train; name fewer sub-modules"),
    ],
)
def test_what_cannot_be_frozen_is_an_error(frozen: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        freeze(build(spec("tiny")), spec("tiny"), frozen, "teaching.frozen")


def test_a_network_without_classes_of_its_own_has_no_head(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = Architecture(lambda channels, classes, width, image_size: nn.Linear(4, 4))
    monkeypatch.setitem(zoo.ZOO, "fixed", fixed)
    with pytest.raises(UserError, match="fixed has no layer of its own for the classes"):
        head_names(spec("fixed"))
