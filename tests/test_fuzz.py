"""Any content of a params file or a manifest is either valid or a UserError that says why not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from meal.cache.settings import CacheSlice
from meal.configure.schema import Params, load_params
from meal.configure.slices import resolve
from meal.core.errors import UserError
from meal.core.settings import load_slice
from meal.data.decoding import decode
from meal.data.prepared import open_prepared
from meal.datasets.registry import DATASETS
from meal.distill.settings import DistillSlice
from meal.ensemble.settings import EnsembleSlice
from meal.evaluation.predictions import Predictions
from meal.export.settings import ExportSlice
from meal.prepare.settings import PrepareSlice
from meal.report.settings import ReportSlice
from meal.supervised.settings import SupervisedSlice
from meal.targets.cache import TargetCache
from meal.targets.ensemble import Ensemble
from tests.conftest import ROOT
from tests.files import as_bytes, picture

pytestmark = pytest.mark.slow

DEFAULT: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["off", "mean", "all", "../../x", "1e-05", "null", "~", "nan", ".inf", "vgg"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
SLICES: dict[str, type[BaseModel]] = {
    "prepare": PrepareSlice,
    "teachers": SupervisedSlice,
    "caches": CacheSlice,
    "ensemble": EnsembleSlice,
    "baseline": SupervisedSlice,
    "distill": DistillSlice,
    "export": ExportSlice,
    "report": ReportSlice,
}
MANY = settings(
    max_examples=1500, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in nested dictionaries and lists."""
    found = [path] if path else []
    if isinstance(tree, dict | list):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in pairs:
            found += places(value, (*path, key))
    return found


def put(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(tree)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return changed


@MANY
@given(path=st.sampled_from(places(DEFAULT)), value=VALUES)
def test_a_params_file_with_any_value_anywhere_is_valid_or_an_error(
    path: tuple[Any, ...], value: Any, tmp_path: Path
) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(put(DEFAULT, path, value)), encoding="utf-8")
    try:
        params = load_params(file)
    except UserError as error:
        keys = {str(key) for key in path if isinstance(key, str)}
        for line in str(error).splitlines():
            assert line.startswith("params.yaml: ")
        # A rule on several keys may name another key, such as the student if networks are gone.
        assert any(key in str(error) for key in keys | {"student", "teachers"}), str(error)
        return
    assert isinstance(params, Params)
    try:
        slices = resolve(params, DATASETS["digits"], {})
    except UserError as error:
        assert "views.count" in str(error)
        return
    for name, part in slices.items():
        assert ".." not in name  # names never leave their folder
        model = SLICES[name.partition("/")[0]]
        assert model.model_validate(part).model_dump(mode="json") == part


@MANY
@given(content=st.one_of(st.binary(max_size=60), VALUES.map(lambda v: json.dumps(v).encode())))
def test_a_params_file_with_random_content_is_an_error(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"^params\.yaml"):
        load_params(file)


@pytest.mark.parametrize(
    "name", ["manifest.json", "ensemble.json", "predictions.json", "slice.json"]
)
def test_a_manifest_with_random_content_is_an_error(name: str, tmp_path: Path) -> None:
    readers: dict[str, list[Callable[[Path], object]]] = {
        "manifest.json": [open_prepared, lambda folder: TargetCache(folder, "cache@one")],
        "ensemble.json": [Ensemble],
        "predictions.json": [Predictions.load],
        "slice.json": [lambda folder: load_slice(DistillSlice, folder / "slice.json")],
    }

    @MANY
    @given(content=st.one_of(st.binary(max_size=60), VALUES.map(lambda v: json.dumps(v).encode())))
    def check(content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        for reader in readers[name]:
            with pytest.raises(UserError, match=r"fix: dvc repro"):
                reader(tmp_path)

    check()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF"])
def test_an_image_with_changed_bytes_is_an_image_or_an_error(form: str) -> None:
    whole = as_bytes(picture(3, mode="P" if form == "GIF" else "RGB"), form)

    @MANY
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6))
    def check(changes: list[tuple[int, int]]) -> None:
        content = bytearray(whole)
        for place, value in changes:
            content[place] = value
        try:
            image = decode(bytes(content), 16)
        except UserError as error:
            assert str(error) and "\n" not in str(error)
        else:
            assert image.pixels.shape == (16, 16, 3) and image.pixels.dtype == np.uint8

    check()


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b", "..", ".hidden", "a b", "mean", ""])
def test_names_cannot_lead_outside_the_projects_folders(name: str, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    for changed in (
        {**DEFAULT, "teachers": [name]},
        {**DEFAULT, "student": name},
        {**DEFAULT, "networks": {**DEFAULT["networks"], name: {"arch": "resnet18"}}},
    ):
        file.write_text(yaml.safe_dump(changed))
        with pytest.raises(UserError, match="a name has 1 to 64 letters"):
            load_params(file)
