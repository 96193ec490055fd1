"""Where an architecture comes from: our zoo, timm, torchvision, or a function of the user's own.

Libraries are imported when one of their networks is asked for: `configure` needs the names alone.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meal.config.schema import Network
from meal.config.slices import NetworkSlice
from meal.nets.pretrained import TIMM, TORCHVISION, pretrained_input, sized
from meal.nets.spec import InputSpec, NetworkSpec
from meal.nets.zoo import ZOO

if TYPE_CHECKING:
    from torch import nn

    from meal.data.prepared import Prepared

OWN = "networks"  # the folder of the user's own networks
FORMS = "a name of the zoo, timm/NAME, torchvision/NAME, or package.module:factory"

# Size, channels, mean and deviation that a network wants; None: as the training split has them.
Wanted = tuple[int, int, Sequence[float] | None, Sequence[float] | None]


def check(network: Network) -> None:
    """Check that an architecture exists and takes what is asked of it.

    Raises:
        ValueError: a line that begins with the key below the network's own.
    """
    arch = network.arch
    known: list[str] | None = None
    if arch.startswith(TIMM):
        import timm

        known = [] if timm.is_model(arch.removeprefix(TIMM)) else timm.list_models()
    elif arch.startswith(TORCHVISION):
        from torchvision.models import list_models

        names = list_models(module=importlib.import_module("torchvision.models"))
        known = [] if arch.removeprefix(TORCHVISION) in names else names
    elif ":" in arch:
        _factory(arch)
    elif arch not in ZOO:
        raise ValueError(f"arch={arch!r}: unknown; allowed: {', '.join(sorted(ZOO))}, or {FORMS}")
    if known:
        import difflib

        close = difflib.get_close_matches(arch.partition("/")[2], known, n=3, cutoff=0)
        raise ValueError(f"arch={arch!r}: unknown; nearest: {', '.join(close)}")
    if network.width != 1 and not (arch in ZOO and ZOO[arch].scales):
        scaling = ", ".join(name for name, entry in ZOO.items() if entry.scales)
        raise ValueError(
            f"width={network.width:g}: {arch} has width 1 alone; "
            f"architectures with others: {scaling}"
        )
    if network.weights == "pretrained" and not arch.startswith((TIMM, TORCHVISION)):
        raise ValueError(
            f"weights='pretrained': {arch} has none; allowed: a file or a url with its sha256, "
            "or null; timm/NAME and torchvision/NAME have pretrained weights"
        )
    if network.options and arch in ZOO:
        raise ValueError(f"options={network.options}: networks of the zoo take none")


def source_file(arch: str) -> Path:
    """The file of `package.module:factory`; ValueError if there is no such module."""
    module = arch.partition(":")[0]
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise ValueError(f"arch={arch!r}: {error}; allowed: {FORMS}") from None
    if found is None or not found.origin:
        raise ValueError(f"arch={arch!r}: no module {module!r} is here; allowed: {FORMS}")
    file = Path(found.origin).resolve()
    here = file.is_relative_to(Path.cwd()) and "site-packages" not in file.parts
    if here and not file.is_relative_to(Path.cwd() / OWN):
        raise ValueError(
            f"arch={arch!r}: networks of your own belong into the folder {OWN}/, where a change to "
            "them is noticed"
        )
    return file


def _factory(arch: str) -> Any:
    """The function that `package.module:factory` names; ValueError if there is none."""
    source_file(arch)
    module, _, name = arch.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # the user's code may raise anything
        raise ValueError(f"arch={arch!r}: {module} cannot be imported: {_told(error)}") from None
    if not callable(factory):
        raise ValueError(f"arch={arch!r}: {module} has no function {name!r}")
    return factory


def _told(error: Exception) -> str:
    """An error of others' code in one line, with its place."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"


def source_digest(arch: str) -> str | None:
    """A digest of the code of a network of the user's own: of all modules of its package.

    Part of the slices, so that a change to that code retrains the networks that use it.
    """
    if ":" not in arch or arch.startswith((TIMM, TORCHVISION)):
        return None
    digest = hashlib.sha256()
    file, depth = source_file(arch), arch.partition(":")[0].count(".")
    package = file.parents[depth if file.name == "__init__.py" else max(0, depth - 1)]
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def specify(network: NetworkSlice, data: Prepared) -> NetworkSpec:
    """The specification of a configured network for prepared data."""
    channels, image_size, _ = data.shape
    known = data.manifest["mean"], data.manifest["deviation"]
    size, wanted, mean, deviation = _wanted_input(network, channels, image_size)
    inputs = None
    if (size, wanted) != (image_size, channels) or mean is not None:
        inputs = InputSpec(
            size=size,
            channels=wanted,
            mean=tuple(mean or known[0]),
            deviation=tuple(deviation or known[1]),
            data_mean=tuple(known[0]),
            data_deviation=tuple(known[1]),
        )
    return NetworkSpec(
        arch=network.arch,
        width=network.width,
        channels=channels,
        image_size=image_size,
        classes=data.classes,
        options=dict(network.options),
        blocks=tuple(network.blocks),
        inputs=inputs,
        source=network.source,
    )


def _wanted_input(network: Network, channels: int, image_size: int) -> Wanted:
    """What a network wants to see, for images of `channels` and `image_size`."""
    size, wanted, mean, deviation = image_size, channels, None, None
    if network.weights == "pretrained":
        size, mean, deviation = pretrained_input(network.arch)
        wanted = len(mean)
    elif network.arch.startswith(TORCHVISION):
        wanted = 3
    if network.input is not None:
        size = network.input.size or size
        if network.input.mean is not None:
            mean, deviation = network.input.mean, network.input.deviation
            wanted = max(wanted, len(mean))
    return size, wanted, mean, deviation


def build(spec: NetworkSpec) -> nn.Module:
    """Build a network with random weights.

    Raises:
        ValueError: if a network of the user's own is not what was asked for.
    """
    channels, size, _ = spec.inner_shape
    if spec.arch in ZOO:
        return ZOO[spec.arch].build(channels, spec.classes, spec.width, size)
    try:
        network = _build_foreign(spec, channels, size)
    except Exception as error:  # others' code may raise anything
        raise ValueError(
            f"{spec.arch} cannot be built with options {dict(spec.options)}: {_told(error)}"
        ) from None
    return _checked(network, spec, (channels, size))


def taps(spec: NetworkSpec) -> tuple[str, ...]:
    """The sub-modules that yield feature maps; empty where they are found by running."""
    return spec.blocks or (ZOO[spec.arch].taps if spec.arch in ZOO else ())


def _build_foreign(spec: NetworkSpec, channels: int, size: int) -> nn.Module:
    if spec.arch.startswith(TIMM):
        import timm

        name = spec.arch.removeprefix(TIMM)
        arguments = {"num_classes": spec.classes, "in_chans": channels, **spec.options}
        arguments = sized(spec, arguments)
        network: nn.Module = timm.create_model(name, pretrained=False, **arguments)
        return network
    if spec.arch.startswith(TORCHVISION):
        from torchvision.models import get_model

        name = spec.arch.removeprefix(TORCHVISION)
        built: nn.Module = get_model(name, weights=None, num_classes=spec.classes, **spec.options)
        return built
    own: nn.Module = _factory(spec.arch)(
        channels=channels, classes=spec.classes, image_size=size, **spec.options
    )
    return own


def _checked(network: Any, spec: NetworkSpec, seen: tuple[int, int]) -> nn.Module:
    """A network that answers `(N, classes)`; ValueError if it does not."""
    import torch
    from torch import nn

    if not isinstance(network, nn.Module):
        raise ValueError(f"{spec.arch} gives {type(network).__name__}, not a torch.nn.Module")
    channels, size = seen
    for mode in ("eval", "training"):
        try:
            tried = network.eval()
            if mode == "training":
                tried = copy.deepcopy(network).train()  # BatchNorm would remember the zeros
            with torch.no_grad():
                answer = tried(torch.zeros(2, channels, size, size))
        except Exception as error:  # others' code may raise anything
            raise ValueError(
                f"{spec.arch} does not take images of {size}x{size} pixels, {channels} channel(s), "
                f"in {mode} mode: {_told(error)}"
            ) from None
        shape = tuple(getattr(answer, "shape", ())) or type(answer).__name__
        if shape != (2, spec.classes):
            raise ValueError(
                f"{spec.arch} answers two images with {shape} in {mode} mode; expected: "
                f"(2, {spec.classes}){', as with aux_logits: false' if shape[0] != 2 else ''}"
            )
    return network.train()
