"""Commands on the project and its last run, and on an exported student."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from meal.cli.app import app, errors
from meal.core.errors import UserError
from meal.core.text import printable


@app.command()
def networks(
    names: Annotated[list[str] | None, typer.Argument(help="architectures; all if none")] = None,
    image_size: Annotated[int, typer.Option(min=16, max=64, help="side length in pixels")] = 32,
    channels: Annotated[int, typer.Option(help="1 or 3")] = 3,
    classes: Annotated[int, typer.Option(min=2)] = 10,
) -> None:
    """Print the multiply-adds and parameters of architectures of the zoo."""
    from meal.evaluation.zoo import zoo_costs
    from meal.models.zoo.registry import ZOO
    from meal.report.tables import networks_table

    with errors(in_project=False):
        if channels not in (1, 3):
            raise UserError(f"--channels={channels}: allowed: 1 or 3")
        for name in names or ():
            if name not in ZOO:
                raise UserError(f"{name}: not in the zoo; allowed: {', '.join(sorted(ZOO))}")
        costs = zoo_costs(sorted(names or ZOO), channels, image_size, classes)
        typer.echo(
            f"{image_size}x{image_size} pixels, {channels} channel(s), {classes} classes, width 1\n"
        )
        typer.echo(networks_table(costs, {arch: ZOO[arch].scales for arch in costs}))


@app.command("run")
def run_stages(
    targets: Annotated[list[str] | None, typer.Argument(help="stages; all if none")] = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="processes at a time")] = 2,
) -> None:
    """Run what is out of date, like dvc repro, with independent stages side by side."""
    from meal.experiments.parallel import run_parallel

    with errors():
        run_parallel(targets or [], jobs)


@app.command()
def cluster(
    address: Annotated[str, typer.Argument(help="HOST:PORT of the first machine")],
    targets: Annotated[list[str] | None, typer.Argument(help="stages; all if none")] = None,
    node: Annotated[
        int, typer.Option(envvar="SLURM_NODEID", min=0, help="this machine's number, from 0")
    ] = 0,
) -> None:
    """Run dvc repro on the first of several machines, and join its stages on the others."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # waiting is no fault
    from meal.core.cluster import join_stages, run_first
    from meal.core.signals import Interrupted

    with errors():
        if node == 0:
            raise typer.Exit(run_first(address, ["dvc", "repro", *(targets or ())]))
        try:
            join_stages(address, node)
        except Interrupted as error:
            typer.echo(error, err=True)
            raise typer.Exit(error.status) from None


@app.command()
def results() -> None:
    """Print the table of the last run: every model's error, calibration and cost."""
    from meal.core.files import read_json, read_sealed
    from meal.core.paths import DATA, SCORES
    from meal.experiments.freshness import warn_if_stale
    from meal.report.tables import heading, results_table, run_note

    with errors():
        manifest = read_sealed(DATA / "manifest.json", fix="dvc repro")
        try:
            scores = read_json(SCORES, fix="dvc repro")
            table = results_table(scores)
            title = heading(manifest)
        except KeyError as error:
            raise UserError(f"the last run lacks {error}; run: dvc repro") from None
        typer.echo(f"{title}\n\n{table}\n\n{run_note(scores)}")
        warn_if_stale()


@app.command()
def teachers() -> None:
    """Print what each teacher is worth to the ensemble, from the caches alone; trains nothing."""
    from meal.core.paths import DATA, ENSEMBLE
    from meal.data.prepared import open_prepared
    from meal.evaluation.worth import teachers_worth
    from meal.experiments.freshness import TAUGHT, warn_if_stale
    from meal.report.tables import worth_note, worth_table
    from meal.targets.ensemble import Ensemble

    with errors():
        ensemble = Ensemble(ENSEMBLE)
        rows = teachers_worth(ensemble, open_prepared(DATA).labels("validation").numpy())
        typer.echo(f"{worth_table(rows)}\n\n{worth_note(rows)}")
        warn_if_stale(TAUGHT)


@app.command()
def predict(
    paths: Annotated[list[Path], typer.Argument(help="images, and folders of images")],
    model: Annotated[Path, typer.Option(help="an exported folder")] = Path("artifacts/export"),
    top: Annotated[int, typer.Option(min=1, help="classes to print per image")] = 5,
    form: Annotated[
        Literal["table", "json", "csv"], typer.Option("--format", help="how to print them")
    ] = "table",
    int8: Annotated[bool, typer.Option("--int8", help="use the quantised file")] = False,
) -> None:
    """Classify images with an exported student; needs ONNX Runtime and Pillow, not PyTorch."""
    with errors(in_project=False):
        from meal.predict.card import INT8, ONNX
        from meal.predict.files import list_images, predict_files
        from meal.predict.output import write_predictions
        from meal.predict.session import OnnxStudent

        if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be in any encoding
            sys.stdout.reconfigure(errors="backslashreplace")
        student = OnnxStudent(model, INT8 if int8 else ONNX)
        found, faults = list_images(paths)
        asked = len(found) + len(faults)
        faults += write_predictions(
            predict_files(student, found), found, student.card.classes, top, form, sys.stdout
        )
        if faults:
            lines = [f"{printable(each.path)}: {printable(each.fault)}" for each in faults]
            lines.append(f"{len(faults)} of {asked} files could not be read")
            raise UserError("\n".join(lines))


@app.command()
def clean(
    yes: Annotated[bool, typer.Option("--yes", help="remove without asking")] = False,
) -> None:
    """Show and remove unfinished work that no run with the current parameters would resume."""
    from meal.configure.checks import checked_slices
    from meal.configure.leftovers import current_data, find_leftovers
    from meal.configure.schema import load_params
    from meal.core.paths import CHECKPOINTS, PARAMS

    with errors():
        slices = checked_slices(load_params(PARAMS), PARAMS.name)
        leftovers = find_leftovers(CHECKPOINTS, slices, current_data(slices))
        for each in leftovers:
            typer.echo(f"{each.size / 2**20:9.1f} MiB  {each.path}  {each.reason}")
        if not leftovers:
            typer.echo("nothing to remove")
            return
        total = sum(each.size for each in leftovers) / 2**20
        if yes or typer.confirm(f"remove {len(leftovers)} folder(s), {total:.1f} MiB?"):
            for each in leftovers:
                each.remove()
            typer.echo(f"removed {total:.1f} MiB")


@app.command()
def recipe(
    names: Annotated[list[str] | None, typer.Argument(help="applied in order")] = None,
    write: Annotated[bool, typer.Option("--write", help="change params.yaml")] = False,
) -> None:
    """Apply recipes to params.yaml and print the result, or write it; without names, list them."""
    from meal.configure.recipes import apply_recipes, list_recipes
    from meal.core.files import atomic_path
    from meal.core.paths import PARAMS, RECIPES

    with errors():
        if not names:
            listed = list_recipes(RECIPES)
            width = max(map(len, listed), default=0)
            typer.echo("\n".join(f"{name:{width}}  {title}" for name, title in listed.items()))
            return
        text = apply_recipes(names, PARAMS, RECIPES)
        if not write:
            typer.echo(text, nl=False)
            return
        with atomic_path(PARAMS.resolve()) as temporary:  # which may be a symlink
            temporary.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {PARAMS}; run: dvc repro")


@app.command()
def timings(
    repeats: Annotated[int, typer.Option(min=3, help="rounds between two looks")] = 15,
    write: Annotated[
        bool, typer.Option("--write", help="write reports/timings.json, which the page shows")
    ] = False,
) -> None:
    """Measure latency and throughput of student and ensemble, in PyTorch and ONNX Runtime."""
    from meal.core.files import write_json
    from meal.core.paths import TIMINGS
    from meal.experiments.timings import measure_run
    from meal.report.tables import timings_note, timings_table

    with errors():
        found = measure_run(repeats)
        typer.echo(f"{timings_table(found)}\n\n{timings_note(found)}")
        if write:
            write_json(TIMINGS, found)
            typer.echo(f"wrote {TIMINGS}; run: dvc repro report")
