"""The command line: `python -m meal COMMAND`. Commands import what they need when called."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

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


@app.command()
def networks(
    names: Annotated[list[str] | None, typer.Argument(help="architectures; all if none")] = None,
    image_size: Annotated[int, typer.Option(min=16, max=64, help="side length in pixels")] = 32,
    channels: Annotated[int, typer.Option(min=1, max=3, help="1 or 3")] = 3,
    classes: Annotated[int, typer.Option(min=2)] = 10,
) -> None:
    """Print the multiply-adds and parameters of architectures of the zoo."""
    from meal.evaluation.zoo import zoo_costs
    from meal.models.zoo import ZOO
    from meal.report.tables import networks_table

    with _errors(in_project=False):
        for name in names or ():
            if name not in ZOO:
                raise UserError(f"{name}: not in the zoo; allowed: {', '.join(sorted(ZOO))}")
        costs = zoo_costs(sorted(names or ZOO), channels, image_size, classes)
        typer.echo(
            f"{image_size}x{image_size} pixels, {channels} channel(s), {classes} classes, width 1\n"
        )
        typer.echo(networks_table(costs, {arch: ZOO[arch].scales for arch in costs}))


@app.command()
def results() -> None:
    """Print the table of the last run: every model's error, calibration and cost."""
    from meal.core.files import read_json, read_sealed
    from meal.core.paths import DATA, SCORES
    from meal.experiments.freshness import warn_if_stale
    from meal.report.tables import heading, results_table, run_note

    with _errors():
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
    from meal.report.tables import worth_note, worth_table
    from meal.targets.ensemble import Ensemble

    with _errors():
        labels = open_prepared(DATA).labels("validation").numpy()
        rows = teachers_worth(Ensemble(ENSEMBLE), labels)
        typer.echo(f"{worth_table(rows)}\n\n{worth_note(rows)}")


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
    with _errors(in_project=False):
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

    with _errors():
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

    with _errors():
        if not names:
            listed = list_recipes(RECIPES)
            width = max(map(len, listed), default=0)
            typer.echo("\n".join(f"{name:{width}}  {title}" for name, title in listed.items()))
            return
        text = apply_recipes(names, PARAMS, RECIPES)
        if not write:
            typer.echo(text, nl=False)
            return
        with atomic_path(PARAMS) as temporary:
            temporary.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {PARAMS}; run: dvc repro")


@app.command()
def sweep(
    set_param: Annotated[
        list[str],
        typer.Option("-S", "--set-param", help="KEY=VALUE,VALUE,...: values to combine"),
    ],
    target: Annotated[
        str, typer.Option(help="last stage to run; distill scores no test images")
    ] = "distill",
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="experiments at a time")] = 1,
) -> None:
    """Run all combinations of parameter values as DVC experiments, resuming an earlier sweep."""
    from meal.core.paths import PARAMS
    from meal.experiments.sweep import plan, run

    with _errors():
        trials = plan(set_param, PARAMS)
        try:
            failed = run(trials, target, jobs)
        except KeyboardInterrupt:
            raise UserError(
                "interrupted; queued experiments keep running: stop them with "
                "`dvc queue stop --kill`, or run the same sweep again to resume"
            ) from None
        if failed:
            raise UserError(
                f"{len(failed)} of {len(trials)} experiments failed: {', '.join(failed)}; "
                "see: dvc queue logs NAME"
            )
    typer.echo(f"{len(trials)} experiments have finished; compare them with: python -m meal table")


@app.command()
def experiments(
    revisions: Annotated[list[str] | None, typer.Argument(help="commits; HEAD if none")] = None,
) -> None:
    """List experiments in the width of the terminal: errors, gains, changed parameters."""
    import shutil

    from meal.experiments.listing import list_experiments

    with _errors():
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        typer.echo(list_experiments(revisions or [], width))


@app.command()
def table(
    revisions: Annotated[list[str] | None, typer.Argument(help="commits; HEAD if none")] = None,
    file: Annotated[str, typer.Option(help="file of scores")] = "reports/validation_scores.json",
    score: Annotated[str, typer.Option(help="score in that file")] = "student.top1_error",
    where: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE: only experiments with this value")
    ] = None,
    reference: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE: compare the others with this one")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="write OUT.csv, OUT.md and OUT.svg, with command and commit")
    ] = None,
) -> None:
    """Compare finished experiments over their seeds: mean, std, paired difference."""
    from meal.experiments.runs import read_runs
    from meal.experiments.table import select, summarise
    from meal.report.evidence import header
    from meal.report.tables import markdown

    with _errors():
        found = read_runs(revisions or [], file, [score]).rename(columns={score: "score"})
        runs = select(found, _pairs(where))
        rows = summarise(runs, _pairs(reference))
        text = markdown(rows)
        typer.echo(text)
        if out:
            from meal.report.figures import seeds_figure

            out.parent.mkdir(parents=True, exist_ok=True)
            rows.to_csv(out.with_suffix(".csv"), index=False, float_format="%.6g")
            title = f"# {score} of {file}, over seeds"
            out.with_suffix(".md").write_text(f"{title}\n\n{header()}\n\n{text}\n")
            seeds_figure(rows, score, out.with_suffix(".svg"))


@app.command()
def margins(
    revisions: Annotated[list[str] | None, typer.Argument(help="commits; HEAD if none")] = None,
    along: Annotated[str, typer.Option(help="KEY: the axis of OUT.svg")] = "data.labelled",
    where: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE: only experiments with this value")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="write OUT.csv, OUT.md and OUT.svg, with command and commit")
    ] = None,
) -> None:
    """Compare the student with its rivals within each experiment, over seeds, on test images."""
    from meal.core.paths import SCORES
    from meal.experiments import margins as compared
    from meal.experiments.runs import read_runs
    from meal.experiments.table import select
    from meal.report.evidence import header
    from meal.report.tables import markdown

    with _errors():
        runs = read_runs(revisions or [], str(SCORES), compared.SCORES)
        rows = compared.margins(select(runs, _pairs(where)))
        text = markdown(compared.readable(rows))
        typer.echo(text)
        if out:
            from meal.report.figures import margins_figure

            shown = compared.along(rows, along)
            out.parent.mkdir(parents=True, exist_ok=True)
            rows.to_csv(out.with_suffix(".csv"), index=False, float_format="%.6g")
            title = f"# Student, baseline and ensemble along {along}"
            out.with_suffix(".md").write_text(f"{title}\n\n{header()}\n\n{text}\n")
            margins_figure(shown, along, compared.MODELS, out.with_suffix(".svg"))


@app.command()
def compare(
    first: Annotated[
        str, typer.Argument(help="a commit, branch or experiment; A,B,C: several seeds")
    ],
    second: Annotated[str, typer.Argument(help="what to compare it with")] = "workspace",
    model: Annotated[
        str, typer.Option(help="student, baseline, ensemble, ensemble_fitted or teachers/NAME")
    ] = "student",
) -> None:
    """Compare two revisions or experiments, in Markdown: numbers, significance, parameters."""
    from meal.experiments.compare import compare as compared

    with _errors():
        typer.echo(compared(first, second, model))


@app.command()
def review(
    base: Annotated[str, typer.Argument(help="branch that the change targets")] = "main",
    out: Annotated[Path, typer.Option(help="file to write")] = Path("review.md"),
    pictures: Annotated[str, typer.Option(help="URL to prepend to the paths of pictures")] = ".",
) -> None:
    """Write a review of the workspace: metrics, parameters, significance, pictures."""
    from meal.core.files import atomic_path
    from meal.experiments.review import review as reviewed

    with _errors():
        text = reviewed(base, pictures)
        with atomic_path(out) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    typer.echo(f"wrote {out}")


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

    with _errors():
        found = measure_run(repeats)
        typer.echo(f"{timings_table(found)}\n\n{timings_note(found)}")
        if write:
            write_json(TIMINGS, found)
            typer.echo(f"wrote {TIMINGS}; run: dvc repro report")


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


def _pairs(options: list[str] | None) -> dict[str, str]:
    for option in options or []:
        if "=" not in option:
            raise UserError(f"{option}: expected KEY=VALUE")
    return dict(option.split("=", 1) for option in options or [])


@contextmanager
def _errors(*, in_project: bool = True) -> Iterator[None]:
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
