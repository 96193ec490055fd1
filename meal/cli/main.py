"""The entry point: all commands, and a hint where a library is missing."""

from __future__ import annotations

import sys

import typer

from meal.cli import experiments, project
from meal.cli.app import app

__all__ = ["app", "experiments", "project", "run"]  # importing the modules adds their commands

_SMALL = ("numpy", "onnxruntime", "PIL", "tqdm")  # what the extra `predict` installs


def run() -> None:
    """The command `meal`; a library that is not installed is named with the extra that has it."""
    try:
        app()
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        if library == "meal":
            raise
        extra = "predict" if library in _SMALL else "pipeline"
        message = (
            f"error: {library} is not installed; in this project's folder, run: "
            f"pip install '.[{extra}]' (on PyPI, the name meal belongs to another project)"
        )
        typer.echo(message, err=True)
        sys.exit(1)
