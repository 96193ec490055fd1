"""Networks for small images, by name. A new network is one builder and one entry in `ZOO`.

They are built from timm and torchvision, with a stem of stride 1 in place of ImageNet's. All take
16 to 64 pixels, 1 or 3 channels, and any number of classes.

At 32x32, 10 classes and width 1, the networks in MEAL's official implementation have, in G
multiply-adds and M parameters: vgg11 0.153/9.231, vgg16 0.313/14.73, vgg19 0.398/20.04, resnet18
0.555/11.17, preact_resnet18 0.555/11.17, densenet 2.363/10.96, mobilenet 0.0464/3.217, dpn92
2.042/34.23, googlenet 1.522/6.166, resnext29 1.409/9.129. `python -m meal networks` prints ours;
tests check that they are within 5%. The published Shake-Shake 26 networks have 2.9 M (2x32d) and
26.2 M (2x96d) parameters.

Builders import their library when called: `configure` needs only the names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """How a network is built.

    Attributes:
        build: called with `(channels, classes, width, image_size)`.
        scales: whether it supports widths other than 1.
        taps: names of the sub-modules that return feature maps, for a network not built by timm.
    """

    build: Callable[[int, int, float, int], nn.Module]
    scales: bool = False
    taps: tuple[str, ...] = ()


def _scaled(channels: int, width: float) -> int:
    """A number of channels times a width: a multiple of 4, at least 4."""
    return max(4, round(channels * width / 4) * 4)


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
    from meal.models.googlenet import build

    return build(channels, classes)


def _shake_shake26(
    planes: int, channels: int, classes: int, width: float, image_size: int
) -> nn.Module:
    from meal.models.shake_shake import ShakeShake

    return ShakeShake(channels, classes, _scaled(planes, width))


STAGES = ("stage1", "stage2", "stage3")
ZOO: dict[str, Architecture] = {
    "resnet18": Architecture(_resnet18, scales=True),
    "preact_resnet18": Architecture(_preact_resnet18, scales=True),
    "resnext29": Architecture(_resnext29),
    "vgg11": Architecture(partial(_vgg, (1, 1, 2, 2, 2)), scales=True),
    "vgg16": Architecture(partial(_vgg, (2, 2, 3, 3, 3)), scales=True),
    "vgg19": Architecture(partial(_vgg, (2, 2, 4, 4, 4)), scales=True),
    "densenet": Architecture(_densenet, scales=True),
    "googlenet": Architecture(_googlenet, taps=("inception3b", "inception4e", "inception5b")),
    "dpn92": Architecture(_dpn92),
    "mobilenet": Architecture(_mobilenet, scales=True),
    "shake_shake26_2x32d": Architecture(partial(_shake_shake26, 32), scales=True, taps=STAGES),
    "shake_shake26_2x96d": Architecture(partial(_shake_shake26, 96), scales=True, taps=STAGES),
}
