"""Where a number comes from: the header of every report on results."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version

from meal.core.device import processor

VERSIONS = ("torch", "torchvision", "timm", "numpy", "dvc")


def commit() -> str:
    """The commit of the current folder, with a `+` if tracked files differ from it."""

    def git(*arguments: str) -> str:
        command = ("git", *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")


def machine() -> dict[str, str | int]:
    """The machine, and the versions of the packages that affect results."""
    return {
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        **{name: version(name) for name in VERSIONS},
    }


def header(module: str = "meal") -> str:
    """Command (`python -m MODULE ...`), commit, machine and versions, as a Markdown block."""
    facts = machine()
    versions = ", ".join(f"{name} {facts[name]}" for name in ("python", *VERSIONS))
    command = shlex.join(["python", "-m", module, *sys.argv[1:]])
    return (
        f"```\ncommand   {command}\ncommit    {commit()}\n"
        f"machine   {facts['processor']}, {facts['cores']} cores\nversions  {versions}\n```"
    )
