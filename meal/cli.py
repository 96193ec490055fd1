"""The command line: `python -m meal COMMAND`. Commands import what they need when called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    from meal.nets.spec import NetworkSpec
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

    with _errors():
        try:
            manifest = read_json(Path("artifacts/data/manifest.json"))
            table = results_table(read_json(Path("reports/metrics.json")))
        except (ValueError, KeyError) as error:
            reason = f"the last run lacks {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{reason}; run: dvc repro") from None
        typer.echo(f"{heading(manifest)}\n\n{table}")


@app.command()
def sweep(
    set_param: Annotated[
        list[str], typer.Option("-S", "--set-param", help="KEY=VALUE,VALUE,...: values to combine")
    ],
    target: Annotated[
        str, typer.Option(help="the stage to run to; distill scores no test images")
    ] = "distill",
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="experiments at a time")] = 1,
) -> None:
    """Run every combination of some parameters as experiments of DVC; go on where one stopped."""
    from meal.experiments.sweep import plan, run

    with _errors():
        trials = plan(set_param, Path("params.yaml"))
        try:
            failed = run(trials, target, jobs)
        except KeyboardInterrupt:
            raise ValueError(
                "interrupted; what is queued goes on: stop it with `dvc queue stop --kill`, come "
                "back to it with the same sweep"
            ) from None
        if failed:
            raise ValueError(
                f"{len(failed)} of {len(trials)} experiments failed: {', '.join(failed)}; "
                "see: dvc queue logs NAME"
            )
    typer.echo(f"{len(trials)} experiments are there; compare them with: python -m meal table")


@app.command()
def table(
    revisions: Annotated[list[str] | None, typer.Argument(help="commits; HEAD if none")] = None,
    file: Annotated[str, typer.Option(help="the metrics file")] = "reports/validation.json",
    score: Annotated[str, typer.Option(help="the metric in it")] = "student.top1_error",
    where: Annotated[list[str] | None, typer.Option(help="KEY=VALUE: these alone")] = None,
    reference: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE: what the others are compared with")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="write OUT.csv, OUT.md and OUT.svg, with where and how")
    ] = None,
) -> None:
    """Compare finished experiments over their seeds: mean, deviation, paired difference."""
    from meal.experiments.runs import read_runs
    from meal.experiments.table import select, summarise
    from meal.reporting.evidence import header
    from meal.reporting.tables import markdown

    with _errors():
        runs = select(read_runs(revisions or [], file, score), _pairs(where))
        rows = summarise(runs, _pairs(reference))
        text = markdown(rows)
        typer.echo(text)
        if out:
            from meal.reporting.figures import seeds_figure

            out.parent.mkdir(parents=True, exist_ok=True)
            rows.to_csv(out.with_suffix(".csv"), index=False, float_format="%.6g")
            title = f"# {score} of {file}, over seeds"
            out.with_suffix(".md").write_text(f"{title}\n\n{header()}\n\n{text}\n")
            seeds_figure(rows, score, out.with_suffix(".svg"))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="a commit, branch or experiment; A,B,C: seeds")],
    second: Annotated[str, typer.Argument(help="another one")] = "workspace",
    model: Annotated[
        str, typer.Option(help="student, baseline, ensemble, teachers/NAME")
    ] = "student",
) -> None:
    """Compare two revisions or experiments, in Markdown: numbers, significance, parameters."""
    from meal.experiments.compare import compare as compared

    with _errors():
        typer.echo(compared(first, second, model))


@app.command()
def review(
    base: Annotated[str, typer.Argument(help="the branch that the change is meant for")] = "main",
    out: Annotated[Path, typer.Option(help="the file")] = Path("review.md"),
    pictures: Annotated[str, typer.Option(help="address before the pictures' paths")] = ".",
) -> None:
    """Write what a reviewer of the workspace reads: metrics, parameters, significance, pictures."""
    from meal.experiments.review import review as reviewed
    from meal.files import atomic_path

    with _errors():
        text = reviewed(base, pictures)
        with atomic_path(out) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    typer.echo(f"{out} is written")


@app.command()
def timings(
    repeats: Annotated[int, typer.Option(min=3, help="rounds; the median is reported")] = 15,
) -> None:
    """Measure latency and throughput of student and ensemble, into reports/timings.json."""
    from meal.config.loading import load_params
    from meal.device import select_device
    from meal.evaluation.timings import measure
    from meal.files import write_json
    from meal.nets.weights import load
    from meal.reporting.evidence import commit, machine
    from meal.reporting.tables import timings_table
    from meal.teaching.ensemble import Ensemble

    with _errors():
        device = select_device(load_params(Path("params.yaml")).runtime)
        ensemble = Ensemble(Path("artifacts/ensemble"))
        teachers = {name: ensemble.spec(name) for name in ensemble.teachers}
        rows = measure(load(Path("artifacts/student"))[0], teachers, device, repeats)
        where = {**machine(), "device": str(device), "commit": commit()}
        write_json(Path("reports/timings.json"), {"machine": where, "models": rows})
        typer.echo(timings_table(rows))


def _pairs(options: list[str] | None) -> dict[str, str]:
    for option in options or []:
        if "=" not in option:
            raise ValueError(f"{option}: KEY=VALUE is expected")
    return dict(option.split("=", 1) for option in options or [])


@contextmanager
def _errors() -> Iterator[None]:
    """What a user can mend is one line, and exit status 1."""
    try:
        if not Path("dvc.yaml").is_file():
            raise ValueError(f"{Path.cwd()} holds no dvc.yaml: run it in the project's folder")
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
