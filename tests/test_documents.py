"""The documents: every command that they show is valid, and every file that they name exists."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from dvc.cli import parse_args
from typer.main import get_command

from meal.cli.main import app
from meal.configure.recipes import list_recipes
from meal.experiments.sweep import plan
from tests.conftest import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PARAMS = ROOT / "params.yaml"
OTHERS = {"cp", "git", "pip", "source", "tensorboard", "wait"}  # commands of the system


def commands() -> list[str]:
    """The lines of code blocks without a language, except for the map of the repository."""
    found = {}
    for document in DOCUMENTS:
        for language, block in re.findall(r"```(\w*)\n(.*?)```", document.read_text(), re.DOTALL):
            if language or "stages/  " in block:
                continue
            for line in block.splitlines():
                command = re.split(r"\s+#", line)[0].strip()
                found[command] = document
    return [command for command in found if command]


def overrides(words: list[str]) -> list[str]:
    return [value for flag, value in itertools.pairwise(words) if flag == "-S"]


def check(words: list[str]) -> None:
    """Raise unless a command exists and has these options and parameters."""
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words[0] == "meal":
        words = ["python", "-m", *words]
    if words[:3] == ["python", "-m", "meal"]:
        group = get_command(app)
        context = group.make_context("meal", list(words[3:]))
        name, command, rest = group.resolve_command(context, list(words[3:]))  # type: ignore[attr-defined]
        command.make_context(name, list(rest), parent=context)
        if name == "recipe":
            assert {word for word in rest if not word.startswith("-")} <= set(
                list_recipes(ROOT / "recipes")
            )
    elif words[:2] == ["python", "-m"]:
        assert (ROOT / f"{words[2].replace('.', '/')}.py").is_file()
    elif words[0] == "dvc":
        parse_args(words[1:])
    elif words[0] == "sbatch":
        assert any((ROOT / word).is_file() for word in words[1:])
    elif words[0] == "make":
        assert words[1] in TARGETS
    else:
        assert words[0] in OTHERS, words
    if overrides(words):
        plan(overrides(words), PARAMS)


@pytest.mark.parametrize("command", commands())
def test_a_command_in_the_documents_is_valid(command: str) -> None:
    for part in re.split(r"[&;]", command):
        if part.strip():
            check(shlex.split(part))


@pytest.mark.parametrize(
    "command",
    [
        "dvc exp run -S distill.sed=1", "python -m meal resluts", "make tests", "dvc exp rnu",
        "python -m meal recipe kdd", "python -m meal compare --nothing a",
    ],
)  # fmt: skip
def test_the_check_finds_invalid_commands(command: str) -> None:
    with pytest.raises((Exception, SystemExit)):
        check(shlex.split(command))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_in_a_document_exist(document: Path) -> None:
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    for link in links:
        assert (document.parent / link).exists(), link
    for name in re.findall(r"`((?:meal|tests|stages|docs|recipes|networks)/[\w/.]+)`", text):
        assert (ROOT / name).exists() or "NAME" in name, name


def test_the_readme_fits_on_two_screens_and_links_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in text


def test_the_map_of_the_repository_has_every_package() -> None:
    text = (ROOT / "docs" / "code.md").read_text()
    block = text.split("```")[1]
    for package in (ROOT / "meal").iterdir():
        if package.is_dir() and package.name != "__pycache__":
            assert f"{package.name}/" in block, package


def test_the_table_of_results_is_that_of_the_last_run() -> None:
    metrics = json.loads((ROOT / "reports" / "scores.json").read_text())
    text = (ROOT / "README.md").read_text()
    rows = {"student, distilled": metrics["student"], "baseline, on labels": metrics["baseline"]}
    rows |= {f"teacher {name}": scores for name, scores in metrics["teachers"].items()}
    rows |= {"ensemble of teachers": metrics["ensemble"]}
    for name, scores in rows.items():
        cells = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        shown = [float(cell) for cell in cells.split("|")[2:6]]
        keys = ("top1_error", "nll", "brier", "ece")
        assert shown == [pytest.approx(scores[key], abs=0.0051) for key in keys]


def test_the_citation_is_valid_yaml_and_names_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] and citation["authors"] and citation["title"]
    assert [author["family-names"] for author in citation["preferred-citation"]["authors"]] == [
        "Shen", "He", "Xue",
    ]  # fmt: skip
