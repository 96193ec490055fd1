"""The Dockerfile, without building it: what hadolint checks, and that it fits the other files."""

from __future__ import annotations

import re
import tomllib

from tests.conftest import ROOT

INSTRUCTIONS = {"FROM", "RUN", "USER", "WORKDIR", "ENV", "COPY", "CMD"}


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text()
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def named(name: str) -> list[str]:
    return [text for instruction, text in instructions() if instruction == name]


def test_its_instructions_are_known_and_follow_good_practice() -> None:
    assert {name for name, _ in instructions()} == INSTRUCTIONS
    (base,) = named("FROM")
    assert ":" in base and not base.endswith(":latest")  # a version
    for text in named("RUN"):
        if "apt-get install" in text:
            assert "apt-get update" in text and "--no-install-recommends" in text
            assert "--yes" in text and "rm -rf /var/lib/apt/lists" in text
        assert "sudo" not in text and "curl" not in text
    assert named("USER") == ["meal"] and named("WORKDIR")[0].startswith("/")
    order = [name for name, _ in instructions()]
    assert order.index("USER") < order.index("COPY")
    assert all("--chown=meal" in text for text in named("COPY"))
    assert named("CMD") == ['["make", "repro"]']


def test_it_installs_what_the_other_files_say() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    wanted = re.search(r"Python (\d+\.\d+)", constraints)
    assert wanted and named("FROM") == [f"python:{wanted.group(1)}-slim-bookworm"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"].startswith(f">={wanted.group(1)}.")
    # `make env` installs with constraints.txt, which must be there before it.
    makefile = (ROOT / "Makefile").read_text()
    assert "--constraint constraints.txt" in makefile and "repro: env" in makefile
    copied = named("COPY")[0]
    assert {"Makefile", "constraints.txt", "pyproject.toml"} <= set(copied.split())
    # Packages that the project names at its top must be pinned, in the image as elsewhere.
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["predict"], *extras["pipeline"]]:
        name = re.split(r"[\[<>=~]", requirement)[0]
        if name != "meal":
            pinned = rf"^{name.replace('-', '[-_]')}=="
            assert re.search(pinned, constraints, re.MULTILINE | re.IGNORECASE), name


def test_nothing_that_a_run_makes_is_copied_into_the_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    for line in (ROOT / ".gitignore").read_text().split():
        if line.endswith("/") and line not in ("__pycache__/", "*.egg-info/"):
            assert line in ignored, line
