"""The networks of the zoo are those of timm and torchvision, with other stems.

The names and shapes of their weights, their outputs, blocks and gradients, and how weights start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from meal.models.blocks import BlockNetwork
from meal.models.factory import build
from meal.models.spec import NetworkSpec
from meal.models.zoo.staged import scaled as _scaled


def _stem(channels: int, out_channels: int, kernel_size: int = 3) -> nn.Module:
    """A convolution of stride 1, initialised like those of the networks."""
    from torch import nn

    stem = nn.Conv2d(channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    return stem


def _resnet18(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    from timm.models.resnet import BasicBlock, ResNet
    from torch import nn

    block: Any = BasicBlock  # timm's annotation wants an instance, but its code the class
    widths = tuple(_scaled(planes, width) for planes in (64, 128, 256, 512))
    # timm scales only the stem of a "deep" network: build one, then replace its convolutions.
    network: Any = ResNet(
        block,
        (2, 2, 2, 2),
        num_classes=classes,
        in_chans=channels,
        channels=widths,
        stem_type="deep",
        stem_width=widths[0] // 2,
    )
    network.conv1, network.maxpool = _stem(channels, widths[0]), nn.Identity()
    return network


def _resnext29(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    from timm.models.resnet import Bottleneck, ResNet
    from torch import nn

    block: Any = Bottleneck
    network: Any = ResNet(
        block,
        (3, 3, 3),
        num_classes=classes,
        in_chans=channels,
        channels=(64, 128, 256),
        cardinality=2,
        base_width=64,
    )
    network.conv1, network.maxpool = _stem(channels, 64, kernel_size=1), nn.Identity()
    network.layer4 = nn.Identity()  # three stages, where timm's forward expects four
    return network


def _preact_resnet18(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    from timm.layers import BatchNormAct2d, create_conv2d
    from timm.models.resnetv2 import ResNetV2
    from torch import nn

    widths = tuple(_scaled(planes, width) for planes in (64, 128, 256, 512))
    network: Any = ResNetV2(
        [2, 2, 2, 2],
        channels=widths,
        num_classes=classes,
        in_chans=channels,
        stem_chs=widths[0],
        basic=True,
        bottle_ratio=1.0,
        conv_layer=create_conv2d,
        norm_layer=BatchNormAct2d,
    )
    network.stem = nn.Sequential(_stem(channels, network.stem.conv.out_channels))
    return network


def _vgg(
    depths: Sequence[int], channels: int, classes: int, width: float, image_size: int
) -> nn.Module:
    from timm.layers import ClassifierHead
    from timm.models.vgg import VGG
    from torch import nn

    stages = zip((64, 128, 256, 512, 512), depths, strict=True)
    plan: list[int | str] = []
    for index, (planes, depth) in enumerate(stages):
        plan += [_scaled(planes, width)] * depth
        if image_size >> (index + 1):  # omit a pool that would leave no position
            plan.append("M")
    features = _scaled(512, width)
    # The official network has one linear layer: build timm's MLP minimally, then replace it.
    network: Any = VGG(
        plan, num_classes=classes, in_chans=channels, norm_layer=nn.BatchNorm2d, mlp_ratio=1 / 4096
    )
    network.pre_logits, network.head = nn.Identity(), ClassifierHead(features, classes)
    return network


def _densenet(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    from timm.models.densenet import DenseNet
    from torch import nn

    growth = _scaled(40, width)
    network: Any = DenseNet(growth, (8, 24, 24), num_classes=classes, in_chans=channels)
    network.features.conv0 = _stem(channels, 2 * growth)
    network.features.pool0 = nn.Identity()
    return network


def _mobilenet(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    from timm.models._efficientnet_builder import decode_arch_def, round_channels
    from timm.models.efficientnet import EfficientNet
    from torch import nn

    plan = ["dsa_r1_k3_s1_c64", "dsa_r2_k3_s2_c128", "dsa_r2_k3_s2_c256"]
    plan += ["dsa_r6_k3_s2_c512", "dsa_r2_k3_s2_c1024"]
    network: Any = EfficientNet(
        decode_arch_def([[stage] for stage in plan]),
        num_classes=classes,
        num_features=0,
        in_chans=channels,
        stem_size=32,
        round_chs_fn=partial(round_channels, multiplier=width),
        act_layer=nn.ReLU,
    )
    network.conv_stem = _stem(channels, network.conv_stem.out_channels)
    return network


def _dpn92(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    from timm.models.dpn import DPN
    from torch import nn

    network: Any = DPN(num_classes=classes, in_chans=channels)
    network.features.conv1_1.conv = _stem(channels, 64)
    network.features.conv1_pool = nn.Identity()
    return network


def _googlenet(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
    from torchvision.models.googlenet import BasicConv2d, GoogLeNet, Inception, InceptionAux

    class Deeper(Inception):
        def __init__(self, *args: int) -> None:
            super().__init__(*args)
            width = args[5]  # in, 1x1, 3x3 reduced, 3x3, 5x5 reduced, 5x5, pool
            self.branch3.append(BasicConv2d(width, width, kernel_size=3, padding=1))

    network: Any = GoogLeNet(
        num_classes=classes, aux_logits=False, init_weights=False, dropout=0.0,
        blocks=[BasicConv2d, Deeper, InceptionAux],
    )  # fmt: skip
    network.conv1 = BasicConv2d(channels, 192, kernel_size=3, padding=1)
    network.maxpool1 = network.conv2 = network.conv3 = network.maxpool2 = nn.Identity()
    network.maxpool3 = nn.MaxPool2d(3, stride=2, padding=1)
    network.maxpool4 = nn.MaxPool2d(3, stride=2, padding=1)
    return network


REFERENCES: dict[str, Callable[[int, int, float, int], nn.Module]] = {
    "resnet18": _resnet18,
    "preact_resnet18": _preact_resnet18,
    "resnext29": _resnext29,
    "vgg11": partial(_vgg, (1, 1, 2, 2, 2)),
    "vgg19": partial(_vgg, (2, 2, 4, 4, 4)),
    "densenet": _densenet,
    "mobilenet": _mobilenet,
    "dpn92": _dpn92,
    "googlenet": _googlenet,
}
TAPS = {"googlenet": ("inception3b", "inception4e", "inception5b")}
CASES = [
    *((arch, 1.0, 1, 16) for arch in REFERENCES),
    *((arch, 0.25, 3, 32) for arch in ("resnet18", "preact_resnet18", "vgg11", "densenet")),
    ("mobilenet", 0.5, 1, 28),
]


@pytest.mark.parametrize(("arch", "width", "channels", "size"), CASES)
def test_values_gradients_and_initial_weights_are_those_of_the_library(
    arch: str, width: float, channels: int, size: int
) -> None:
    spec = NetworkSpec(arch, width, channels, size, 7)
    own = build(spec)
    torch.manual_seed(0)
    reference = REFERENCES[arch](channels, 7, width, size).to(memory_format=torch.channels_last)
    theirs = reference.state_dict()
    assert {name: value.shape for name, value in own.state_dict().items()} == {
        name: value.shape for name, value in theirs.items()
    }
    for name, value in own.state_dict().items():
        if value.ndim > 1 and value.numel() > 2000:
            assert float(value.std()) == pytest.approx(float(theirs[name].std()), rel=0.1), name
        elif value.ndim == 1 and "weight" in name:
            assert torch.equal(value, theirs[name]), name
        elif name.endswith("bias"):
            assert value.any() == theirs[name].any(), name
    noise = {
        name: value + 0.01 * torch.rand_like(value) if value.is_floating_point() else value
        for name, value in theirs.items()
    }
    images = torch.randn(3, channels, size, size).to(memory_format=torch.channels_last)
    results = []
    for network, taps in ((own, ()), (reference, TAPS.get(arch, ()))):
        network.load_state_dict(noise)
        with_blocks = BlockNetwork(network, taps, 3, spec.shape)
        trained, blocks = with_blocks.train()(images)
        trained.square().sum().backward()
        logits = with_blocks.eval()(images)[0]
        gradients = [parameter.grad for parameter in network.parameters()]
        results.append((trained, logits, blocks, gradients))
    (trained, logits, blocks, _), expected = results
    assert torch.equal(trained, expected[0]) and torch.equal(logits, expected[1])
    assert blocks.keys() == expected[2].keys() and len(blocks) == 3
    for block, values in blocks.items():
        assert torch.equal(values, expected[2][block]), block
    named = dict(reference.named_parameters())
    for name, parameter in own.named_parameters():
        assert torch.allclose(parameter.grad, named[name].grad, rtol=1e-4, atol=1e-5), name  # type: ignore[arg-type]
