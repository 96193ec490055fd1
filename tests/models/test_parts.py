"""Heads and backbones: what they are in networks of any source, and what freezing them does."""

from __future__ import annotations

import re
from typing import Any

import pytest
from torch import nn

from meal.core.errors import UserError
from meal.models.factory import build
from meal.models.parts import freeze, head_names
from meal.models.spec import InputSpec, NetworkSpec

ADAPTED = InputSpec(64, 3, (0.5,) * 3, (0.5,) * 3, (0.1,), (0.3,))


def network(arch: str, **changes: Any) -> nn.Module:
    return build(
        NetworkSpec(arch, 1.0, **{"channels": 1, "image_size": 32, "classes": 7, **changes})
    )


@pytest.mark.parametrize(
    ("arch", "head"),
    [
        ("tiny", "5"),
        ("resnet18", "fc"),
        ("densenet", "classifier"),
        ("timm/test_vit", "head"),
        ("timm/test_convnext", "head.fc"),
        ("timm/test_efficientnet", "classifier"),
        ("torchvision/mobilenet_v3_small", "inner.classifier.3"),
        ("torchvision/squeezenet1_1", "inner.classifier.1"),
    ],
)
def test_the_head_is_the_layer_that_returns_the_logits(arch: str, head: str) -> None:
    vit = {"options": {"img_size": 32}} if "vit" in arch else {}
    adapted = {"inputs": ADAPTED} if arch.startswith("torchvision") else {}
    assert head_names(network(arch, **vit, **adapted), 7) == [head]


def test_all_but_the_head_can_be_frozen() -> None:
    made = network("tiny", classes=3, inputs=ADAPTED)
    held = freeze(made, "backbone", 3, "teaching.frozen")
    trained = {name for name, value in made.named_parameters() if value.requires_grad}
    assert trained == {"inner.5.weight", "inner.5.bias"}
    norms = [module for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 3 and all(norm in held for norm in norms)


def test_sub_modules_can_be_frozen_by_name() -> None:
    made = network("tiny", classes=3, inputs=ADAPTED)
    freeze(made, ["0", "2.0"], 3, "teaching.frozen")
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
        freeze(network("tiny", classes=3), frozen, 3, "teaching.frozen")


def test_a_network_without_such_a_layer_has_no_head() -> None:
    with pytest.raises(UserError, match="no layer returns 5 values"):
        head_names(network("tiny", classes=3), 5)
