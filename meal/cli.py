"""The command line: `python -m meal COMMAND`. Commands import what they need when called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="MEAL: several networks distilled into one.", no_args_is_help=True, add_completion=False
)


@app.callback()
def main() -> None:
    """Keep commands named, also while there are few."""


@app.command()
def networks(
    image_size: Annotated[int, typer.Option(min=16, max=64, help="pixels a side")] = 32,
    channels: Annotated[int, typer.Option(min=1, max=3, help="1 or 3")] = 3,
    classes: Annotated[int, typer.Option(min=2)] = 10,
) -> None:
    """Print what each architecture costs, measured."""
    from meal.evaluation.costs import count
    from meal.nets.weights import NetworkSpec
    from meal.nets.zoo import ZOO
    from meal.reporting.tables import networks_table

    costs = {
        arch: count(NetworkSpec(arch, 1.0, channels, image_size, classes)) for arch in sorted(ZOO)
    }
    typer.echo(networks_table(costs, {arch: entry.scales for arch, entry in ZOO.items()}))


@app.command()
def results() -> None:
    """Print the table of the last run: every model's error, calibration and cost."""
    from meal.files import read_json
    from meal.reporting.tables import heading, results_table

    try:
        manifest = read_json(Path("artifacts/data/manifest.json"))
        table = results_table(read_json(Path("reports/metrics.json")))
        typer.echo(f"{heading(manifest)}\n\n{table}")
    except (ValueError, KeyError) as error:
        reason = f"the last run lacks {error}" if isinstance(error, KeyError) else error
        typer.echo(f"error: {reason}; run: dvc repro", err=True)
        raise typer.Exit(1) from None
