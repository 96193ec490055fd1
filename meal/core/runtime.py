"""`runtime` in params.yaml: where stages run and how fast, not what they compute.

It is in no stage's slice, so a change re-runs nothing; stages read it from params.yaml directly.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from meal.core.errors import UserError
from meal.core.fields import Integer, Number
from meal.core.paths import PARAMS
from meal.core.settings import Section, parse, read_yaml


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:(0|[1-9][0-9]{0,2}))?", value):
        raise ValueError("allowed: auto, cpu, cuda, cuda:N")
    return value


Logger = Literal["none", "tensorboard", "mlflow", "wandb"]


def _installed(value: Logger) -> Logger:
    if value != "none" and find_spec(value) is None:
        raise ValueError(f"not installed; run: pip install {value}")
    return value


class Runtime(Section):
    """Device, processes, threads, determinism, minutes between checkpoints, and a tracker.

    `processes` compute together on each of `nodes` machines; `auto` is one per GPU, otherwise one.
    Each has `threads`, and `workers` that decode image files.
    """

    device: Annotated[str, AfterValidator(_device)] = "auto"
    processes: Annotated[Integer, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    nodes: Annotated[Integer, Field(ge=1, le=1024)] = 1
    threads: Annotated[Integer, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    workers: Annotated[Integer, Field(ge=0, le=256)] | Literal["auto"] = "auto"
    deterministic: bool = True
    checkpoint_minutes: Annotated[Number, Field(ge=0.01)] = 10.0
    logger: Annotated[Logger, AfterValidator(_installed)] = "none"


def load_runtime() -> Runtime:
    """The section `runtime` of the project's params.yaml.

    Raises:
        UserError: if params.yaml or the section is invalid.
    """
    return parse(Runtime, _section("runtime"), source=f"{PARAMS.name}: runtime")


def data_root() -> str | None:
    """`data.root` of the project's params.yaml; moving the image files changes no result."""
    root = _section("data").get("root")
    if root == "auto":
        return None
    if root is not None and not isinstance(root, str):
        raise UserError(f"{PARAMS.name}: data.root={root!r}: expected a folder or auto")
    return root


def _section(name: str) -> dict[str, Any]:
    section = read_yaml(PARAMS).get(name) or {}
    if not isinstance(section, dict):
        raise UserError(f"{PARAMS.name}: {name}={section!r}: expected keys with values")
    return section
