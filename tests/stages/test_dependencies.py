"""The dependencies in dvc.yaml: the code that a stage loads, and what a change re-runs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.stages.conftest import Project

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
TRAINED = ["teacher@vgg", "teacher@resnet", "teacher@preact"]
CACHED = ["cache@vgg", "cache@resnet", "cache@preact"]
SCORED = ["evaluate", "report", "export"]

# A changed file in each package, and the stages that its change re-runs. DVC compares outputs by
# content: if a stage gives the same bytes, the stages after it are not run.
CHANGES: dict[str, list[str]] = {
    "meal/advice/forecast.py": [],
    "meal/cache/build.py": CACHED,
    "meal/cache/settings.py": ["configure", *CACHED],
    "meal/cli/project.py": [],
    "meal/configure/schema.py": ["configure"],
    "meal/core/files.py": [
        "configure", "prepare", *TRAINED, *CACHED, "ensemble", "baseline", "distill", *SCORED
    ],
    "meal/data/stores.py": [
        "prepare", *TRAINED, *CACHED, "ensemble", "baseline", "distill", *SCORED
    ],
    "meal/datasets/published.py": ["configure", "prepare"],
    "meal/distill/discriminator.py": ["distill"],
    "meal/distill/objective.py": ["distill"],
    "meal/distill/settings.py": ["configure", "distill"],
    "meal/distill/similarity.py": ["distill"],
    "meal/ensemble/weighting.py": ["ensemble"],
    "meal/evaluation/costs.py": SCORED,
    "meal/experiments/sweep.py": [],
    "meal/export/card.md": ["export"],
    "meal/export/parity.py": ["export"],
    "meal/metrics.py": [*TRAINED, "ensemble", "baseline", "distill", *SCORED],
    "meal/models/blocks.py": [
        "configure", *TRAINED, *CACHED, "baseline", "distill", "evaluate", "export"
    ],
    "meal/predict/session.py": ["export"],
    "meal/prepare/card.py": ["prepare"],
    "meal/report/page.html": ["report"],
    "meal/supervised/loading.py": [*TRAINED, "baseline"],
    "meal/targets/cache.py": [*CACHED, "ensemble", "distill", "evaluate"],
    "meal/training/engine.py": [*TRAINED, "baseline", "distill"],
    "meal/views/families.py": [
        *TRAINED, *CACHED, "baseline", "distill", "evaluate", "export"
    ],
    "networks/example.py": ["configure"],
    "stages/distill.py": ["distill"],
}  # fmt: skip


def code_of(stage: str) -> list[str]:
    """The code that a stage declares."""
    dependencies = STAGES[stage].get("do", STAGES[stage])["deps"]
    return [path for path in dependencies if path.startswith(("meal/", "stages/", "networks"))]


def covers(dependency: str, path: str) -> bool:
    return path == dependency or path.startswith(f"{dependency}/")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_at_most_ten_code_dependencies(stage: str) -> None:
    assert 1 <= len(code_of(stage)) <= 10


def test_a_stage_declares_what_it_loads_and_loads_what_it_declares(project: Project) -> None:
    """Modules are recorded at the end of a real run, so imports inside functions count, too."""
    assert set(project.loaded) == set(project.first_run)
    for name, loaded in project.loaded.items():
        code = code_of(name.partition("@")[0])
        packages = {path for path in loaded if path.endswith("__init__.py")}
        undeclared = {
            path for path in loaded - packages if not any(covers(each, path) for each in code)
        }
        assert not undeclared, name
        unused = {each for each in code if not any(covers(each, path) for path in loaded)}
        assert not unused, name


# What users import: `meal.load`, `meal.targets.open`, `meal.views.apply`.
PUBLIC = ("meal", "meal/targets", "meal/views")


def test_what_users_import_is_imported_when_it_is_used() -> None:
    names = ", ".join(name.replace("/", ".") for name in PUBLIC)
    code = f"import sys, {names}; print('torch' in sys.modules, 'numpy' in sys.modules)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


def test_init_modules_hold_only_a_docstring() -> None:
    """A stage can then depend on a single module of a package."""
    for folder in ("meal", "stages", "networks"):
        for path in (ROOT / folder).rglob("__init__.py"):
            body = ast.parse(path.read_text()).body
            if path.parent.relative_to(ROOT).as_posix() in PUBLIC:
                continue
            assert len(body) == 1 and ast.get_docstring(ast.parse(path.read_text())), path


@pytest.fixture(scope="module")
def untouched(project: Project) -> Iterator[Project]:
    """The project with the outputs of its first commit, for dry runs that change no output."""
    project.run("git", "checkout", "-q", "-f", "main")
    project.run("git", "clean", "-fdq")
    project.run("dvc", "checkout", "-q", "-f")
    yield project


@pytest.mark.parametrize("path", CHANGES)
def test_a_change_re_runs_only_the_stages_in_the_table(path: str, untouched: Project) -> None:
    file = untouched.folder / path
    content = file.read_text()
    comment = "# a comment" if file.suffix == ".py" else "<!-- a comment -->"
    file.write_text(f"{content}\n{comment}\n")
    try:
        stale = untouched.stages_run("dvc", "repro", "--dry")
    finally:
        file.write_text(content)
    assert sorted(stale) == sorted(CHANGES[path])


def test_every_package_is_in_the_table() -> None:
    packages = {path.name for path in (ROOT / "meal").iterdir() if path.is_dir()} - {"__pycache__"}
    tested = {Path(path).parts[1] for path in CHANGES if path.startswith("meal/")}
    assert packages <= tested


# The packages and modules from the bottom up; those in one set do not import each other.
LAYERS = [
    {"core"}, {"metrics"}, {"scores"}, {"datasets", "data"}, {"views", "predict"}, {"models"},
    {"training"}, {"targets"}, {"prepare", "supervised", "cache", "ensemble", "distill"},
    {"evaluation"}, {"report", "export", "advice"}, {"configure"}, {"experiments"}, {"cli"},
    {"__main__"},
]  # fmt: skip


def imports(path: Path) -> set[str]:
    """The packages that a module imports, including imports inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom) and node.module == "meal":
            names = [f"meal.{alias.name}" for alias in node.names]
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("meal.")}
    return found


def test_packages_only_import_what_is_below_them() -> None:
    level = {name: index for index, names in enumerate(LAYERS) for name in names}
    for path in sorted((ROOT / "meal").rglob("*.py")):
        own = path.relative_to(ROOT / "meal").parts[0].removesuffix(".py")
        for other in imports(path) if own != "__init__" else ():
            assert other == own or level[other] < level[own], f"{path} imports {other}"


def test_only_experiments_import_dvc() -> None:
    for path in sorted((ROOT / "meal").rglob("*.py")):
        dvc = any(
            name.split(".")[0] == "dvc"
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        )
        assert not dvc or "experiments" in path.parts, path
