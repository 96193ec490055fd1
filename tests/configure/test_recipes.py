"""Recipes change the parameters that they name, and keep the rest of params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from meal.configure.recipes import apply_recipes, list_recipes
from meal.core.digests import sha256
from meal.core.errors import UserError
from tests.conftest import ROOT

RECIPES, PARAMS = ROOT / "recipes", ROOT / "params.yaml"
STARTED = {"meal-v2", "fkd"}  # they start from a weights file


def merged(params: Any, changes: Any) -> Any:
    """Apply a recipe: merge mappings, and replace networks and everything else."""
    for key, value in changes.items():
        if key == "networks":
            params[key] |= value
        elif isinstance(value, dict) and isinstance(params[key], dict):
            merged(params[key], value)
        else:
            params[key] = value
    return params


@pytest.mark.parametrize("name", sorted(list_recipes(RECIPES)))
def test_a_recipe_changes_only_what_it_names_and_passes_configure(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    if name in STARTED:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "start.safetensors").write_bytes(b"weights")
        recipe["distill"]["init"]["sha256"] = sha256(tmp_path / "start.safetensors")
    applied = yaml.safe_load(apply_recipes([name], PARAMS, RECIPES))
    expected = merged(yaml.safe_load(PARAMS.read_text()), recipe)
    assert applied == expected


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_opens_with_a_title_its_command_and_its_cost(path: Path) -> None:
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    head = "\n".join(comments)
    assert comments[0].endswith(".") or ":" in comments[0]
    assert f"python -m meal recipe {path.stem} --write" in head and "# Cost: " in head


def test_applying_a_recipe_keeps_comments_and_every_other_line() -> None:
    before, after = (
        PARAMS.read_text().splitlines(), apply_recipes(["kd"], PARAMS, RECIPES).splitlines()
    )  # fmt: skip
    assert len(before) == len(after)
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    keys = [line.split(":")[0].strip() for line in changed]
    assert keys == ["selection", "adversarial"]
    assert sum("#" in line for line in after) == sum("#" in line for line in before)


def test_recipes_are_applied_in_order() -> None:
    both = yaml.safe_load(apply_recipes(["fashion_mnist", "kd"], PARAMS, RECIPES))
    assert both["dataset"] == "fashion_mnist" and both["distill"]["selection"] == "mean"


def test_an_unknown_recipe_or_a_missing_weights_file_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="recipe 'kdd': unknown; allowed: ablation, cifar10"):
        apply_recipes(["kdd"], PARAMS, RECIPES)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"starts from start\.safetensors, which is not a file"):
        apply_recipes(["meal-v2"], PARAMS, RECIPES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "zz.yaml holds no keys"),
        ("# only a comment", "zz.yaml holds no keys"),
        ("- 1", "zz.yaml holds no keys"),
        ("a: [", "zz.yaml cannot be read"),
        ("student: vgg\nstudent: resnet", "zz.yaml cannot be read"),
        ("distill: [1]", r"params.yaml with zz: distill=\[1\]"),
        ("foo: 1", "params.yaml with zz: foo: unknown key"),
        ("distill: {init: {file: null}}", "params.yaml with zz: distill.init"),
        ("distill: {init: {file: /tmp}}", "starts from /tmp, which is not a file"),
    ],
)
def test_a_broken_recipe_is_one_line_and_breaks_no_other(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "zz.yaml").write_text(text)
    (tmp_path / "good.yaml").write_text((RECIPES / "kd.yaml").read_text())
    with pytest.raises(UserError, match=message):
        apply_recipes(["zz"], PARAMS, tmp_path)
    assert apply_recipes(["good"], PARAMS, tmp_path) == apply_recipes(["kd"], PARAMS, RECIPES)
    assert set(list_recipes(tmp_path)) == {"zz", "good"}


def test_a_method_does_not_keep_the_start_of_another() -> None:
    for name in ("kd", "meal-blocks", "meal-official", "meal-official-single"):
        assert yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["distill"]["init"] == "none"


METHODS = ("kd", "meal-blocks", "meal-official", "meal-official-single", "meal-v2", "fkd")


@pytest.mark.parametrize("first", METHODS)
def test_a_method_can_follow_any_other(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And decides everything about the loss: nothing of the first is left."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "start.safetensors").write_bytes(b"weights")
    for second in METHODS:
        alone = yaml.safe_load(apply_recipes([second], PARAMS, RECIPES))["distill"]
        after = yaml.safe_load(apply_recipes([first, second], PARAMS, RECIPES))["distill"]
        if alone["adversarial"] in ("off", False):  # YAML 1.1
            alone["discriminator"] = after["discriminator"]  # of no use
        decay = alone.pop("weight_decay"), after.pop("weight_decay")
        assert after == alone, second
        assert decay[1] in (decay[0], 0.0)  # the optimisation is the dataset's, or MEAL V2's
