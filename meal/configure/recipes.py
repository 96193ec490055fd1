"""Recipes: files in `recipes/` with the parameters that differ from params.yaml.

Mappings are merged key by key, except that a network replaces the one of the same name; everything
else is replaced. Comments and layout of params.yaml are kept.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from meal.configure.checks import checked_slices
from meal.configure.schema import load_params
from meal.core.digests import sha256
from meal.core.errors import UserError
from meal.core.settings import read_yaml

_WHOLE = ("networks",)  # sections whose entries are replaced as a whole


def list_recipes(folder: Path) -> dict[str, str]:
    """The first line of each recipe, by name."""
    titles = {}
    for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem):
        with path.open(encoding="utf-8", errors="replace") as file:
            titles[path.stem] = file.readline().strip().removeprefix("# ")
    return titles


def apply_recipes(names: Sequence[str], params: Path, folder: Path) -> str:
    """The text of `params` after applying recipes in order, checked as `configure` does.

    Raises:
        UserError: if there is no such recipe, or the result is not valid.
    """
    layout = YAML()  # reads and writes data only, and keeps comments
    layout.width = 4096  # never wrap a line
    layout.preserve_quotes = True
    layout.representer.add_representer(type(None), _explicit_null)
    merged = _read(params, layout)
    for name in names:
        path = folder / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(list_recipes(folder)) or f"none, as {folder}/ holds no recipes"
            raise UserError(f"recipe {name!r}: unknown; allowed: {known}")
        _merge(merged, _with_digest(_read(path, layout), name))
    buffer = io.StringIO()
    layout.dump(merged, buffer)
    text = buffer.getvalue()
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / f"{params.name} with {', '.join(names)}"
        copy.write_text(text, encoding="utf-8")
        checked_slices(load_params(copy), copy.name)
    return text


def _read(path: Path, layout: YAML) -> Any:
    """The keys and values of a file, with its comments."""
    read_yaml(path)  # for its error messages
    try:
        return layout.load(path.read_text(encoding="utf-8"))
    except YAMLError as error:  # stricter than PyYAML: repeated keys, for example
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def _merge(target: Any, changes: Any, *, whole: bool = False) -> None:
    """Merge `changes` into `target`, key by key; `whole` replaces values instead of merging."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict) and not whole:
            _merge(target[key], value, whole=key in _WHOLE)
        elif isinstance(value, list) and isinstance(target.get(key), list):
            target[key][:] = value  # in place: the layout and comments of the list stay
        else:
            target[key] = value


def _with_digest(recipe: Any, name: str) -> Any:
    """The recipe, with the SHA-256 of its weights file filled in if it has none."""
    section = recipe.get("distill")
    weights = section.get("init") if isinstance(section, dict) else None
    if not isinstance(weights, dict) or "sha256" in weights:
        return recipe
    if isinstance(weights.get("file"), str):
        file = Path(weights["file"])
        if not file.is_file():
            raise UserError(
                f"recipe {name!r} starts from {file}, which is not a file; create it from the "
                f"baseline: cp artifacts/baseline/weights.safetensors {file}"
            )
        weights["sha256"] = sha256(file)
    return recipe


def _explicit_null(representer: Any, value: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
