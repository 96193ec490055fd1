"""`dvc exp run -S` rewrites params.yaml with DVC's own writer: it must change one line."""

from __future__ import annotations

import difflib
import json
import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from meal.configure.defaults import DEFAULTS, changed, given
from meal.configure.schema import load_params
from meal.models.settings import Network
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("assignment", "removed", "added"),
    [
        ("student=densenet", 1, 1),
        ("seed=3", 1, 1),
        ("data.labelled=all", 1, 1),
        ("data.image_size=32", 1, 1),
        ("views.count=4", 1, 1),
        ("views.scale=[0.2,1.0]", 1, 1),
        ("networks.vgg.width=0.5", 1, 1),
        ("teaching.lr=0.01", 1, 1),
        ("cache.top_k=5", 1, 1),
        ("ensemble.weights=fitted", 1, 1),
        ("distill.temperature=1.0", 1, 1),
        ("distill.similarity.logits=kl", 1, 1),
        ("distill.discriminator.lr=0.1", 1, 1),
        ("export.int8=true", 1, 1),
        ("runtime.device=cpu", 1, 1),
        ("teachers=[vgg,resnet]", 1, 0),
        ("distill.blocks=[1,2,3]", 1, 4),
    ],
)
def test_an_override_changes_one_line(
    assignment: str, removed: int, added: int, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    before = path.read_text().splitlines()
    apply_overrides(str(path), [assignment])
    lines = list(difflib.unified_diff(before, path.read_text().splitlines(), n=0, lineterm=""))[2:]
    assert len([line for line in lines if line.startswith("-")]) == removed, lines
    assert len([line for line in lines if line.startswith("+")]) == added, lines


def test_what_is_unset_is_a_word_that_dvc_keeps() -> None:
    """DVC writes null as nothing at all."""
    text = (ROOT / "params.yaml").read_text()
    assert "null" not in text
    params = load_params(ROOT / "params.yaml")
    assert params.data.root is params.data.image_size is params.cache.top_k is None
    assert params.distill.init is params.distill.labelled_share is None


def test_the_defaults_are_those_of_params_yaml() -> None:
    params = load_params(ROOT / "params.yaml")
    wanted = json.dumps(given(params), indent=0) + "\n"
    assert DEFAULTS.read_text() == wanted, f"write this into {DEFAULTS}:\n{wanted}"
    assert changed(params) == {}
    networks = {**params.networks, "spare": Network(arch="vgg19")}  # used by nothing
    other = params.model_copy(update={"seed": 3, "networks": networks})
    assert changed(other) == {"seed": 3}
