"""The application, and what its commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from meal.core.errors import UserError, log_to_stderr, user_message
from meal.core.text import printable

app = typer.Typer(help="MEAL: distill several networks into one.", no_args_is_help=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"meal {version('meal')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_show_version)
    ] = False,
) -> None:
    """Send warnings to standard error."""
    log_to_stderr()


def pairs(options: list[str] | None) -> dict[str, str]:
    """Options `KEY=VALUE` as a dictionary."""
    for option in options or []:
        if "=" not in option:
            raise UserError(f"{option}: expected KEY=VALUE")
    return dict(option.split("=", 1) for option in options or [])


@contextmanager
def errors(*, in_project: bool = True) -> Iterator[None]:
    """Print errors that the user can fix without a traceback, and exit with status 1."""
    try:
        if in_project and not Path("dvc.yaml").is_file():
            raise UserError(f"{Path.cwd()} holds no dvc.yaml; run this in the project's folder")
        yield
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        for line in message.splitlines():
            typer.echo(f"error: {printable(line)}", err=True)
        raise typer.Exit(1) from None
