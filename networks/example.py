"""An example network, to copy and adapt."""

from __future__ import annotations

from torch import Tensor, nn


class SmallConvNet(nn.Module):
    """Three stages of convolutions; `blocks` in params.yaml can name any of its sub-modules."""

    def __init__(self, channels: int, classes: int, planes: int) -> None:
        super().__init__()
        self.stage1 = _stage(channels, planes, stride=1)
        self.stage2 = _stage(planes, 2 * planes, stride=2)
        self.stage3 = _stage(2 * planes, 4 * planes, stride=2)
        self.head = nn.Linear(4 * planes, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(N, channels, H, W)` to logits `(N, classes)`."""
        features = self.stage3(self.stage2(self.stage1(images)))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def small_convnet(channels: int, classes: int, image_size: int, planes: int = 16) -> nn.Module:
    """The function for `arch: networks.example:small_convnet`; `options` can set `planes`."""
    return SmallConvNet(channels, classes, planes)
