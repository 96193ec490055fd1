"""Networks for small images, by name. A new network is one builder and one entry in `_BUILDERS`.

Each has a stem of stride 1 in place of ImageNet's, takes images of 16 to 64 pixels with 1 or 3
channels, and any number of classes. Modules and weights have the names that timm gives them.

At 32x32, 10 classes and width 1, the networks in MEAL's official implementation have, in G
multiply-adds and M parameters: vgg11 0.153/9.231, vgg16 0.313/14.73, vgg19 0.398/20.04, resnet18
0.555/11.17, preact_resnet18 0.555/11.17, densenet 2.363/10.96, mobilenet 0.0464/3.217, dpn92
2.042/34.23, googlenet 1.522/6.166, resnext29 1.409/9.129. `python -m meal networks` prints ours;
tests check that they are within 5%. The published Shake-Shake 26 networks have 2.9 M (2x32d) and
26.2 M (2x96d) parameters.

A network is imported when it is built: `configure` needs only the names. None of them imports timm
or torchvision, which take longer to import than torch does.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    Builder = Callable[[int, int, float, int], nn.Module]


@dataclass(frozen=True)
class Architecture:
    """How a network is built.

    Attributes:
        build: called with `(channels, classes, width, image_size)`.
        scales: whether it supports widths other than 1.
    """

    build: Builder
    scales: bool = False


def _builder(module: str, function: str) -> Builder:
    def build(channels: int, classes: int, width: float, image_size: int) -> nn.Module:
        made = getattr(importlib.import_module(f"{__package__}.{module}"), function)
        network: nn.Module = made(channels, classes, width, image_size)
        return network

    return build


# The module and the name of each builder, and whether it scales.
_BUILDERS = (
    ("resnet", "resnet18", True),
    ("resnet", "preact_resnet18", True),
    ("resnet", "resnext29", False),
    ("vgg", "vgg11", True),
    ("vgg", "vgg16", True),
    ("vgg", "vgg19", True),
    ("densenet", "densenet", True),
    ("googlenet", "googlenet", False),
    ("dpn", "dpn92", False),
    ("mobilenet", "mobilenet", True),
    ("shake_shake", "shake_shake26_2x32d", True),
    ("shake_shake", "shake_shake26_2x96d", True),
)
ZOO = {name: Architecture(_builder(module, name), scales) for module, name, scales in _BUILDERS}
