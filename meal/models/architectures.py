"""The names of architectures: which exist, and which parameters they support.

A library is imported only when one of its networks is named: `configure` often needs none.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import traceback
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from meal.core.digests import code_digest
from meal.core.errors import UserError
from meal.core.text import printable
from meal.models.settings import Network
from meal.models.zoo.registry import ZOO

TIMM, TORCHVISION = "timm/", "torchvision/"  # prefixes of their names
# Arguments with which the libraries' builders load files or download, and their prefixes.
_LOADING = ("checkpoint_path", "pretrained", "weights", "cache_dir", "hf_hub", "url", "file")
_LONGEST = 200  # characters of a module name: file systems allow no more than 255
OWN = "networks"  # the package of the user's own networks
FORMS = f"timm/NAME, torchvision/NAME, or {OWN}.MODULE:FUNCTION"


def check(network: Network) -> None:
    """Check that an architecture exists and supports the parameters of a network.

    Raises:
        UserError: with one line that begins with the key below `networks.NAME`.
    """
    arch = network.arch
    if arch.startswith(TIMM):
        _check_timm(arch)
    elif arch.startswith(TORCHVISION):
        from torchvision.models import list_models

        names = list_models(module=importlib.import_module("torchvision.models"))
        _check_name(arch, arch.removeprefix(TORCHVISION) in names, lambda: names)
    elif ":" in arch:
        own_function(arch)
    elif arch not in ZOO:
        raise UserError(f"arch={arch!r}: unknown; allowed: {', '.join(sorted(ZOO))}, {FORMS}")
    if network.width != 1 and not (arch in ZOO and ZOO[arch].scales):
        scaling = ", ".join(name for name, entry in ZOO.items() if entry.scales)
        raise UserError(
            f"width={network.width:g}: {arch} supports only width 1; "
            f"architectures with other widths: {scaling}"
        )
    if network.weights == "pretrained" and not arch.startswith((TIMM, TORCHVISION)):
        raise UserError(
            f"weights='pretrained': {arch} has none; allowed: a file or a url with its sha256, "
            "or null; timm/NAME and torchvision/NAME have pretrained weights"
        )
    if network.options and arch in ZOO:
        raise UserError(f"options={network.options}: networks in the zoo take none")
    if arch.startswith((TIMM, TORCHVISION)):
        _check_options(network.options)


def _check_options(options: Mapping[str, Any]) -> None:
    """Weights must enter through `weights`: it verifies digests and executes no code."""
    for name in options:
        if name.startswith(_LOADING):
            raise UserError(
                f"options.{printable(name)}={options[name]!r}: an option cannot load weights; "
                "allowed: weights: pretrained, or weights: {file: PATH, sha256: DIGEST}"
            )


def _check_timm(arch: str) -> None:
    """Look for the name in timm's source files first: importing timm takes seconds."""
    name, dot, tag = arch.removeprefix(TIMM).partition(".")
    package = find_spec("timm")
    if package is not None and package.origin is not None:
        builder = re.compile(rf"^@register_model\ndef {re.escape(name)}\(", re.MULTILINE)
        for file in (Path(package.origin).parent / "models").glob("*.py"):
            text = file.read_text(encoding="utf-8")
            if builder.search(text) and (not dot or f"'{name}.{tag}'" in text):
                return
    import timm

    names = timm.list_pretrained if dot else timm.list_models
    _check_name(arch, arch.removeprefix(TIMM) in names(), names)


def _check_name(arch: str, known: bool, names: Any) -> None:
    if not known:
        close = difflib.get_close_matches(arch.partition("/")[2], names(), n=3, cutoff=0)
        raise UserError(f"arch={arch!r}: unknown; nearest: {', '.join(close)}")


def own_function(arch: str) -> Any:
    """The function that `networks.MODULE:FUNCTION` names.

    Raises:
        UserError: if its module is outside the package `networks` (it is then never imported),
            or cannot be imported.
    """
    _own_file(arch)
    module, _, name = arch.partition(":")
    try:
        function = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # the user's code may raise anything
        raise UserError(f"arch={arch!r}: {module} cannot be imported: {describe(error)}") from None
    if not callable(function):
        raise UserError(f"arch={arch!r}: {module} has no function {name!r}")
    return function


def own_digest(arch: str) -> str | None:
    """A code digest of all modules in `networks` if the network is the user's own, else None.

    It is in the slices, so a change to that code retrains the networks that use it.
    """
    if ":" not in arch or arch.startswith((TIMM, TORCHVISION)):
        return None
    _own_file(arch)
    folder = Path(OWN).resolve()
    return code_digest(_sources(folder), folder)


def _sources(folder: Path) -> Iterator[Path]:
    """The modules below a folder, also behind symlinks."""
    read: set[str] = set()  # a symlink may lead back
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in read:
            folders.clear()
            continue
        read.add(real)
        yield from (Path(place) / name for name in files if name.endswith(".py"))


def _own_file(arch: str) -> Path:
    """The file of the module that `arch` names, below the project's folder `networks`."""
    module = arch.partition(":")[0]
    parts = module.split(".")
    named = parts[0] == OWN and len(parts) > 1 and all(part.isidentifier() for part in parts)
    if not named or len(module) > _LONGEST:
        raise UserError(
            f"arch={arch!r}: your own networks belong in the folder {OWN}/, where changes to them "
            f"are noticed; allowed: {FORMS}"
        )
    folder = Path(*parts)
    for file in (folder.with_suffix(".py"), folder / "__init__.py"):
        if file.is_file():
            return file
    raise UserError(f"arch={arch!r}: there is no file {folder.with_suffix('.py')}")


def describe(error: Exception) -> str:
    """An error from foreign code in one line, with file and line number."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"
