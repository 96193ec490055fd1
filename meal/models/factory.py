"""From a specification to a module: the only module that builds networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from meal.core.errors import UserError
from meal.models.adapter import Adapted, InputAdapter
from meal.models.architectures import TIMM, TORCHVISION, describe, own_function
from meal.models.blocks import Alignment, BlockNetwork
from meal.models.hub import size_argument
from meal.models.parts import inner
from meal.models.spec import NetworkSpec
from meal.models.strides import subsample_first
from meal.models.zoo.registry import ZOO


def build(spec: NetworkSpec, seed: int = 0) -> nn.Module:
    """Build a network with random weights drawn from `seed`; the global generator is untouched.

    Raises:
        UserError: if code outside the zoo fails, or does not return a module.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _build(spec)
    subsample_first(network)
    if spec.inputs is not None:
        network = Adapted(InputAdapter(spec.inputs), network)
    return network.to(memory_format=torch.channels_last)


def with_blocks(
    network: nn.Module, spec: NetworkSpec, blocks: int, align: Alignment = "spatial"
) -> BlockNetwork:
    """Wrap a network so that it returns logits and up to `blocks` aligned blocks.

    Raises:
        UserError: if `spec.blocks` names a sub-module that does not exist.
    """
    return BlockNetwork(network, spec.blocks, blocks, spec.shape, align)


def check_structure(spec: NetworkSpec, key: str) -> None:
    """Check that a network accepts its images and returns logits, in eval and training mode.

    Call this before training a network or loading its weights; networks in the zoo are known to
    pass.

    Args:
        spec: the network.
        key: its key in params.yaml, for messages.

    Raises:
        UserError: if it does not, or `spec.blocks` names no sub-modules with feature maps.
    """
    if spec.arch in ZOO and not spec.blocks:
        return
    network = build(spec)  # a separate one: running it changes buffers
    if spec.arch not in ZOO:
        bare = inner(network)[1]
        for mode in ("eval", "training"):
            _check_logits(bare, spec, mode)
    if spec.blocks:
        try:
            with_blocks(network, spec, 1)
        except UserError as error:
            raise UserError(f"{key}.{error}") from None


def _build(spec: NetworkSpec) -> nn.Module:
    channels, size, _ = spec.inner_shape
    if spec.arch in ZOO:
        return ZOO[spec.arch].build(channels, spec.classes, spec.width, size)
    try:
        network = _build_foreign(spec, channels, size)
    except Exception as error:  # code outside the zoo may raise anything
        raise UserError(
            f"{spec.arch} cannot be built with options {dict(spec.options)}: {describe(error)}"
        ) from None
    if not isinstance(network, nn.Module):
        raise UserError(f"{spec.arch} returns {type(network).__name__}, not a torch.nn.Module")
    if any(map(is_lazy, (*network.parameters(), *network.buffers()))):
        _run(network.eval(), spec, "eval")  # lazy layers take their shapes from the first images
    return network.train()


def _build_foreign(spec: NetworkSpec, channels: int, size: int) -> object:
    """What timm, torchvision or the user's own function builds."""
    if spec.arch.startswith(TIMM):
        import timm

        arguments = {"num_classes": spec.classes, "in_chans": channels, **spec.options}
        arguments = {**size_argument(spec.arch, size), **arguments}
        return timm.create_model(spec.arch.removeprefix(TIMM), pretrained=False, **arguments)
    if spec.arch.startswith(TORCHVISION):
        from torchvision.models import get_model

        name = spec.arch.removeprefix(TORCHVISION)
        return get_model(name, weights=None, num_classes=spec.classes, **spec.options)
    return own_function(spec.arch)(
        channels=channels, classes=spec.classes, image_size=size, **spec.options
    )


@torch.no_grad()
def _run(network: nn.Module, spec: NetworkSpec, mode: str) -> object:
    """The output of a network for two images; raise UserError if it fails."""
    channels, size, _ = spec.inner_shape
    images = torch.linspace(-1, 1, 2 * channels * size**2).view(2, channels, size, size)
    before = images.clone()
    try:
        output = network(images)
    except Exception as error:  # code outside the zoo may raise anything
        raise UserError(
            f"{spec.arch} does not take images of {size}x{size} pixels and {channels} channel(s) "
            f"in {mode} mode: {describe(error)}"
        ) from None
    if not images.is_meta and not torch.equal(images, before):
        raise UserError(
            f"{spec.arch} changes its images in place, which other networks see, too; let it work "
            "on a copy"
        )
    return output


def _check_logits(network: nn.Module, spec: NetworkSpec, mode: str) -> None:
    """Raise UserError unless `network` returns logits `(2, classes)` for two images."""
    logits = _run(network.train(mode == "training"), spec, mode)
    shape = tuple(getattr(logits, "shape", ())) or type(logits).__name__
    if shape != (2, spec.classes):
        several = spec.arch.startswith(TORCHVISION) and shape[0] != 2
        hint = ", as with aux_logits: false" if several else ""
        raise UserError(
            f"{spec.arch} returns {shape} for two images in {mode} mode; expected: "
            f"(2, {spec.classes}){hint}"
        )
    assert isinstance(logits, Tensor)  # it has a shape
    if (logits >= 0).all() and torch.allclose(logits.sum(dim=1), torch.ones(2), atol=1e-4):
        raise UserError(f"{spec.arch} returns probabilities; expected: logits, without a softmax")
