"""Any network as `B` aligned blocks and its logits.

The *levels* of a network are its last feature maps at each distinct spatial size of 4x4 or more,
found by running it on one image. If all maps have the same size, as in transformers, each is a
level. With `L` levels, block `k` of `B` is level `ceil(k * L / B)`; if blocks share a level, only
the last of them is kept. The rule looks at one network only, so a teacher's cached blocks never
depend on the student.

Alignment: `spatial` (MEAL, section 3.2) is the mean over channels, pooled to 4x4; `projected` is
the spatial mean of each channel, and a learned map converts the student's to the teacher's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from meal.core.errors import UserError
from meal.models.adapter import Adapted
from meal.models.parts import inner, submodule

GRID = 4  # positions per side after pooling
ALIGNED = GRID * GRID  # values of a spatially aligned block of any network
ALIGNMENT_VERSION = 1  # part of a cache's fingerprint: raise it when aligned values change


def assign_blocks(levels: int, blocks: int) -> dict[int, int]:
    """Map block numbers, from 1 to `blocks`, to level numbers, from 1 to `levels`."""
    if not levels:
        return {}
    level_of = {block: -(-block * levels // blocks) for block in range(1, blocks + 1)}
    last_block_of = {level: block for block, level in level_of.items()}
    return {block: level for level, block in sorted(last_block_of.items())}


def align(features: Tensor) -> Tensor:
    """Mean over channels, then 4x4 adaptive average pooling: `(N, C, H, W)` to `(N, 16)`."""
    # sum, not mean: its gradient is a broadcast view, while that of mean is a full-size tensor.
    plane = features.float().sum(dim=1) / features.shape[1]
    if features.device.type == "cpu":  # works per image, so any batch gives the same bits
        return nn.functional.adaptive_avg_pool2d(plane, GRID).flatten(1)
    return pool_deterministic(plane).flatten(1)


def channel_means(features: Tensor) -> Tensor:
    """The spatial mean of each channel: `(N, C, H, W)` to `(N, C)`."""
    return features.float().sum(dim=(2, 3)) / (features.shape[2] * features.shape[3])


Alignment = Literal["spatial", "projected"]
ALIGNMENTS: dict[str, Callable[[Tensor], Tensor]] = {"spatial": align, "projected": channel_means}


def levels_of(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """The indices of the maps that are levels, given the sizes of all maps in forward order."""
    large = [index for index, size in enumerate(sizes) if min(size) >= GRID]
    if len(set(sizes)) == 1:
        return large
    return sorted({sizes[index]: index for index in large}.values())


def as_map(features: Tensor) -> Tensor:
    """A feature map `(N, C, H, W)`, from a map or from tokens `(N, T, C)` on a square grid.

    Images are square: if axes 1 and 2 are equal and axis 3 differs, the channels are last, and are
    moved to axis 1.

    Raises:
        UserError: if `features` is neither, or the tokens are not a square plus at most one.
    """
    if not isinstance(features, Tensor):
        raise UserError(f"blocks: an output is a {type(features).__name__}, not a tensor")
    if features.ndim == 4:
        first, second, last = features.shape[1:]
        return features.movedim(3, 1) if first == second != last else features
    side = math.isqrt(features.shape[1]) if features.ndim == 3 else 0
    if not side:
        raise UserError(
            f"blocks: shape {tuple(features.shape)} is neither a feature map nor tokens"
        )
    extra = features.shape[1] - side * side
    if extra > 1:
        raise UserError(
            f"blocks: {features.shape[1]} tokens are neither a square nor a square plus one"
        )
    return features[:, extra:].transpose(1, 2).unflatten(2, (side, side))


def pool_deterministic(plane: Tensor) -> Tensor:
    """4x4 adaptive average pooling of `(N, H, W)` as two weighted sums.

    On CUDA, the gradient of adaptive pooling is summed in varying order; this one is not.
    """
    height, width = plane.shape[1:]
    rows = _pooling_weights(height, plane.device, plane.dtype)
    columns = _pooling_weights(width, plane.device, plane.dtype)
    plane = (plane[:, None] * rows[:, :, None]).sum(dim=2)
    return (plane[:, :, None] * columns).sum(dim=3)


@functools.cache
def _pooling_weights(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Weights `(4, size)` that average over the windows of adaptive pooling."""
    with torch.inference_mode(False):  # the cached tensor also serves training
        weights = torch.zeros(GRID, size)
        for cell in range(GRID):
            start, stop = cell * size // GRID, -(-(cell + 1) * size // GRID)
            weights[cell, start:stop] = 1 / (stop - start)
        return weights.to(device, dtype)


class BlockNetwork(nn.Module):
    """A network whose forward pass returns logits and aligned blocks.

    Attributes:
        network: the plain network, whose state is trained and saved.
        block_levels: for each block that the network has, the index of its feature map.
        block_sizes: for each block, the number of its aligned values.
    """

    def __init__(
        self,
        network: nn.Module,
        taps: Sequence[str],
        blocks: int,
        shape: tuple[int, int, int],
        alignment: Alignment = "spatial",
    ) -> None:
        """Find the levels of `network` by running it on one image of `shape` (C, H, W).

        Args:
            network: any network.
            taps: names of the sub-modules whose outputs are feature maps, in forward order; if
                empty, the maps come from `forward_intermediates`, which networks of timm and the
                zoo have, or from a search.
            blocks: the number of blocks that the network is divided into.
            shape: channels, height and width of its input.
            alignment: how a map becomes values.

        Raises:
            UserError: if `taps` names a sub-module that does not exist.
        """
        super().__init__()
        self.network = network
        self._align = ALIGNMENTS[alignment]
        self._captured: dict[int, Tensor] = {}
        bare = inner(network)[1]
        parameter = next(network.parameters())
        image = torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype)
        self._hooked = bool(taps) or not hasattr(bare, "forward_intermediates")
        if self._hooked:
            for index, name in enumerate(taps or _find_taps(network, bare, image)):
                submodule(bare, name, "blocks").register_forward_hook(self._capture(index))
        maps = self._maps(image)
        levels = levels_of([(int(m.shape[-2]), int(m.shape[-1])) for m in maps])
        self.block_levels = {
            block: levels[level - 1] for block, level in assign_blocks(len(levels), blocks).items()
        }
        self.block_sizes = {
            block: int(self._align(maps[level]).shape[1])
            for block, level in self.block_levels.items()
        }

    def forward(self, images: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Images `(N, C, H, W)` to logits `(N, classes)` and blocks, each `(N, D)`."""
        logits, maps = self._features(images, sorted(set(self.block_levels.values())))
        return logits, {block: self._align(maps[n]) for block, n in self.block_levels.items()}

    def _features(
        self, images: Tensor, indices: list[int] | None
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Logits, and the feature maps at `indices`, or all of them for None."""
        network: Any = self.network
        if indices == []:
            logits = network(images)
            self._captured.clear()
            return logits, {}
        if self._hooked:
            logits = network(images)
            wanted = sorted(self._captured) if indices is None else indices
            maps = {index: as_map(self._captured[index]) for index in wanted}
            self._captured.clear()  # else a step's maps stay in memory until the next step
            return logits, maps
        if isinstance(network, Adapted):
            images, network = network.adapter(images), network.inner
        final, features = network.forward_intermediates(images, indices=indices)
        numbers = range(len(features)) if indices is None else indices
        return network.forward_head(final), dict(zip(numbers, features, strict=True))

    def _capture(self, index: int) -> Any:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            self._captured[index] = output

        return hook

    @torch.no_grad()
    def _maps(self, image: Tensor) -> list[Tensor]:
        """All feature maps, found by running the network once."""
        training = self.network.training
        self.network.eval()
        maps = self._features(image, None)[1]
        self.network.train(training)
        return [maps[index] for index in sorted(maps)]


@torch.no_grad()
def _find_taps(network: nn.Module, inner: nn.Module, image: Tensor) -> list[str]:
    """The sub-modules whose outputs are the network's feature maps, in forward order.

    For each size, this is the last of the least nested modules: more deeply nested ones are
    branches inside the following stage. For a network of tokens, it is the layers: the siblings
    that return tokens.
    """
    maps: dict[tuple[int, ...], tuple[int, str]] = {}  # by size: depth and name
    layers: dict[str, list[str]] = {}  # by parent: children that return a square of tokens

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if not isinstance(output, Tensor) or output.ndim not in (3, 4):
                return
            if output.ndim == 3:
                if output.shape[1] - math.isqrt(output.shape[1]) ** 2 <= 1:
                    layers.setdefault(name.rpartition(".")[0], []).append(name)
                return
            size, depth = tuple(as_map(output).shape[-2:]), name.count(".")
            if size not in maps or depth <= maps[size][0]:
                maps.pop(size, None)  # move it to the end of the order
                maps[size] = depth, name

        return hook

    hooks = [
        module.register_forward_hook(hook_for(name))
        for name, module in inner.named_modules()
        if name
    ]
    training = network.training
    network.eval()(image)
    network.train(training)
    for handle in hooks:
        handle.remove()
    repeated = max(layers.values(), key=len, default=[])
    if len(repeated) > len(maps):
        return repeated
    return [name for _, name in maps.values()]
