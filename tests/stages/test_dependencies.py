"""What dvc.yaml says a stage depends on is the code that it loads: no more, no less."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Packages' own __init__ hold a docstring alone; the schema's decisions stand in the slices.
NOT_DECLARED = ("meal/__init__.py", "stages/__init__.py", "meal/config/")

LOADED = """
import sys, importlib
importlib.import_module("stages." + sys.argv[1])
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0] in ("meal", "stages") and getattr(module, "__file__", None):
        print(module.__file__)
"""


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_it_loads(stage: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", LOADED, stage], cwd=ROOT, check=True, capture_output=True, text=True
    )
    paths = [str(Path(line).relative_to(ROOT)) for line in result.stdout.splitlines()]
    loaded = {path for path in paths if not path.startswith(NOT_DECLARED)}
    declared = STAGES[stage].get("do", STAGES[stage])["deps"]
    code = [path for path in declared if path.startswith(("meal/", "stages/"))]

    def covers(dependency: str, path: str) -> bool:
        return path == dependency or path.startswith(f"{dependency}/")

    packages = {path for path in loaded if path.endswith("__init__.py")}
    undeclared = {p for p in loaded - packages if not any(covers(d, p) for d in code)}
    assert not undeclared
    unused = {d for d in code if d != "meal/config" and not any(covers(d, p) for p in loaded)}
    assert not unused


def test_folders_only_import_what_is_below_them() -> None:
    order = [
        {"config", "device", "files", "interruption", "metrics", "progress", "work"},
        {"data"}, {"nets"}, {"training"}, {"teaching"},
        {"distillation"}, {"evaluation"}, {"reporting"}, {"experiments"}, {"cli", "__main__"},
    ]  # fmt: skip
    level = {name: index for index, names in enumerate(order) for name in names}
    wrong = []
    for path in sorted((ROOT / "meal").rglob("*.py")):
        own = path.relative_to(ROOT / "meal").parts[0].removesuffix(".py")
        for line in path.read_text().splitlines():
            words = line.split()
            if len(words) > 1 and words[0] in ("from", "import") and words[1].startswith("meal."):
                other = words[1].split(".")[1]
                if level[other] > level[own]:
                    wrong.append(f"{path}: {line.strip()}")
    assert not wrong
