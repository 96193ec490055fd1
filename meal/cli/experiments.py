"""Commands on experiments: run many, compare them, review a change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meal.cli.app import app, errors, pairs
from meal.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

Revisions = Annotated[list[str] | None, typer.Argument(help="commits; HEAD if none")]
Where = Annotated[
    list[str] | None, typer.Option(help="KEY=VALUE: only experiments with this value")
]
Out = Annotated[
    Path | None, typer.Option(help="write OUT.csv, OUT.md and OUT.svg, with command and commit")
]


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

    with errors():
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
    revisions: Revisions = None,
) -> None:
    """List experiments in the width of the terminal: errors, gains, changed parameters."""
    import shutil

    from meal.experiments.listing import list_experiments

    with errors():
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        typer.echo(list_experiments(revisions or [], width))


@app.command()
def table(
    revisions: Revisions = None,
    file: Annotated[str, typer.Option(help="file of scores")] = "reports/validation_scores.json",
    score: Annotated[str, typer.Option(help="score in that file")] = "student.top1_error",
    where: Where = None,
    reference: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE: compare the others with this one")
    ] = None,
    out: Out = None,
) -> None:
    """Compare finished experiments over their seeds: mean, std, paired difference."""
    from meal.experiments.runs import read_runs
    from meal.experiments.table import select, summarise
    from meal.report.tables import markdown

    with errors():
        found = read_runs(revisions or [], file, [score]).rename(columns={score: "score"})
        runs = select(found, pairs(where))
        rows = summarise(runs, pairs(reference))
        text = markdown(rows)
        typer.echo(text)
        if out:
            from meal.report.figures import seeds_figure

            _write(out, rows, f"{score} of {file}, over seeds", text)
            seeds_figure(rows, score, _beside(out, ".svg"))


@app.command()
def margins(
    revisions: Revisions = None,
    along: Annotated[str, typer.Option(help="KEY: the axis of OUT.svg")] = "data.labelled",
    where: Where = None,
    out: Out = None,
) -> None:
    """Compare the student with its rivals within each experiment, over seeds, on test images."""
    from meal.core.paths import SCORES
    from meal.experiments import margins as compared
    from meal.experiments.runs import read_runs
    from meal.experiments.snapshots import read_all
    from meal.experiments.table import select
    from meal.report.tables import markdown

    with errors():
        runs = select(read_runs(revisions or [], str(SCORES), compared.SCORES), pairs(where))
        snapshots = read_all(list(runs.index))
        predictions = {name: each.need_predictions() for name, each in snapshots.items()}
        rows = compared.margins(runs, predictions)
        text = markdown(compared.readable(rows))
        typer.echo(text)
        if out:
            from meal.report.figures import margins_figure

            shown = compared.along(rows, along)
            _write(out, rows, f"Student, baseline and ensemble along {along}", text)
            own = compared.most_repeated(shown, runs).index
            paid = snapshots[own[0]].metrics["cost"]
            cost = compared.at_cost([predictions[name] for name in own], paid)
            margins_figure(shown, along, compared.MODELS, cost, _beside(out, ".svg"))


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

    with errors():
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

    with errors():
        text = reviewed(base, pictures)
        with atomic_path(out) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    typer.echo(f"wrote {out}")


def _write(out: Path, rows: pd.DataFrame, title: str, text: str) -> None:
    """Write rows as OUT.csv, and as text with title, command and commit as OUT.md."""
    from meal.core.files import atomic_path
    from meal.report.evidence import header

    with atomic_path(_beside(out, ".csv")) as temporary:
        rows.to_csv(temporary, index=False, float_format="%.6g")
    with atomic_path(_beside(out, ".md")) as temporary:
        temporary.write_text(f"# {title}\n\n{header()}\n\n{text}\n", encoding="utf-8")


def _beside(out: Path, suffix: str) -> Path:
    """OUT with a suffix; names may hold dots, as in kd_0.1."""
    return out.with_name(out.name + suffix)


@app.command()
def advise(
    runs: Annotated[
        Path | None, typer.Option(help="runs to learn from as well, from `meal facts`")
    ] = None,
) -> None:
    """Say whether distillation will pay, before a student is trained.

    It needs teachers, their caches and a baseline: dvc repro ensemble baseline.
    """
    from meal.advice.advice import advise as advised
    from meal.advice.facts import project_facts
    from meal.advice.forecast import read_studies
    from meal.experiments.freshness import TAUGHT, warn_if_stale

    with errors():
        warn_if_stale(TAUGHT)
        for line in advised(project_facts(), read_studies(runs)).lines():
            typer.echo(line)


@app.command()
def facts(
    out: Annotated[Path, typer.Option(help="CSV file to write")],
    revisions: Revisions = None,
) -> None:
    """Write the facts and test errors of finished experiments, from which advice is learnt."""
    from meal.core.files import atomic_path
    from meal.experiments.studies import study_runs

    with errors():
        found, lacking = study_runs(revisions or [])
        with atomic_path(out) as temporary:
            found.to_csv(temporary, index=False)
        older = f"; {lacking} are from an older version" if lacking else ""
        typer.echo(f"wrote {len(found)} runs to {out}{older}")
