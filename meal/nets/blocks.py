"""Any network as `B` aligned blocks and its logits.

*Levels* are a network's last feature maps at each distinct spatial size of 4x4 or more, found by
running it on one image. Of `L` levels, block `k` of `B` is level `ceil(k * L / B)`; where blocks
share a level, the last of them keeps it. The rule looks at one network alone, so a cached block
never depends on who will be compared with it.

Alignment (MEAL, section 3.2): mean over channels, adaptive average pooling to 4x4.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

GRID = 4  # positions a side after pooling
ALIGNED = GRID * GRID  # values of an aligned block, whatever the network
ALIGNMENT_VERSION = 1  # part of a cache's fingerprint: raise it when aligned values would change


def assign_blocks(levels: int, blocks: int) -> dict[int, int]:
    """Map block numbers, from 1 to `blocks`, to level numbers, from 1 to `levels`."""
    if not levels:
        return {}
    level_of = {block: -(-block * levels // blocks) for block in range(1, blocks + 1)}
    last_block_of = {level: block for block, level in level_of.items()}
    return {block: level for level, block in sorted(last_block_of.items())}


def align(features: Tensor) -> Tensor:
    """Mean over channels, then 4x4 adaptive average pooling: `(N, C, H, W)` to `(N, 16)`."""
    # sum, not mean: its gradient is a broadcast view, where mean's fills a map of full size.
    plane = features.float().sum(dim=1) / features.shape[1]
    if features.device.type == "cpu":  # each image by itself: the same bits in any batch
        return nn.functional.adaptive_avg_pool2d(plane, GRID).flatten(1)
    return pool_deterministic(plane).flatten(1)


def pool_deterministic(plane: Tensor) -> Tensor:
    """4x4 adaptive average pooling of `(N, H, W)` as two weighted sums.

    On CUDA the gradient of adaptive pooling adds up in any order. This one does not.
    """
    height, width = plane.shape[1:]
    rows = _pooling_weights(height, plane.device, plane.dtype)
    columns = _pooling_weights(width, plane.device, plane.dtype)
    plane = (plane[:, None] * rows[:, :, None]).sum(dim=2)
    return (plane[:, :, None] * columns).sum(dim=3)


@functools.cache
def _pooling_weights(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Weights `(4, size)` that average over the windows of adaptive pooling."""
    with torch.inference_mode(False):  # kept for training too, whoever asks first
        weights = torch.zeros(GRID, size)
        for cell in range(GRID):
            start, stop = cell * size // GRID, -(-(cell + 1) * size // GRID)
            weights[cell, start:stop] = 1 / (stop - start)
        return weights.to(device, dtype)


class BlockNetwork(nn.Module):
    """A network whose forward pass yields logits and aligned blocks.

    Attributes:
        network: the plain network; its state is what is trained, saved and exported.
        block_levels: for each block the network has, the index of its feature map.
    """

    def __init__(
        self, network: nn.Module, taps: tuple[str, ...], blocks: int, shape: tuple[int, int, int]
    ) -> None:
        """Find the levels of `network` on one image of `shape` (C, H, W).

        Args:
            network: timm's, where `taps` is empty; else any network.
            taps: names of the sub-modules whose outputs are feature maps, in forward order.
            blocks: into how many blocks the network is cut.
            shape: channels, height and width of its input.
        """
        super().__init__()
        self.network = network
        self._captured: dict[int, Tensor] = {}
        self._hooked = bool(taps)
        for index, name in enumerate(taps):
            network.get_submodule(name).register_forward_hook(self._capture(index))
        sizes = self._feature_sizes(shape)
        last_of_size = {size: index for index, size in enumerate(sizes) if min(size) >= GRID}
        levels = sorted(last_of_size.values())
        self.block_levels = {
            block: levels[level - 1] for block, level in assign_blocks(len(levels), blocks).items()
        }

    def forward(self, images: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Images `(N, C, H, W)` to logits `(N, classes)` and blocks, each `(N, 16)`."""
        logits, maps = self._features(images, sorted(set(self.block_levels.values())))
        return logits, {block: align(maps[level]) for block, level in self.block_levels.items()}

    def _features(self, images: Tensor, indices: list[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """Logits, and the feature maps of `indices`."""
        network: Any = self.network
        if self._hooked:
            logits = network(images)
            maps = {index: self._captured[index] for index in indices}
            self._captured.clear()
            return logits, maps
        final, features = network.forward_intermediates(images, indices=indices)
        return network.forward_head(final), dict(zip(indices, features, strict=True))

    def _capture(self, index: int) -> Any:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            self._captured[index] = output

        return hook

    @torch.no_grad()
    def _feature_sizes(self, shape: tuple[int, int, int]) -> list[tuple[int, int]]:
        """Height and width of every candidate feature map, by running the network once."""
        training, parameter = self.network.training, next(self.network.parameters())
        image = torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype)
        self.network.eval()
        if self._hooked:
            self.network(image)
            maps = [self._captured[index] for index in sorted(self._captured)]
            self._captured.clear()
        else:
            maps = self.network.forward_intermediates(image)[1]  # type: ignore[operator]
        self.network.train(training)
        return [(int(features.shape[-2]), int(features.shape[-1])) for features in maps]
