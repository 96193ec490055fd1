"""The report: one page that holds everything it shows, and needs no network."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined

from meal.evaluation.comparison import ERROR, RIVALS, claims, compare_models
from meal.evaluation.metrics import TEMPERATURES, class_errors
from meal.evaluation.predictions import BASELINE, ENSEMBLE, FITTED, STUDENT, Predictions
from meal.files import atomic_path
from meal.reporting.figures import save
from meal.reporting.tables import plain, results_rows

if TYPE_CHECKING:
    from meal.reporting.pictures import Picture

_WORST_CLASSES = 10
_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}

Table = dict[str, Any]  # title, columns, rows of text, note


def write_page(
    page: Path,
    figures: Path,
    heading: tuple[str, str],
    metrics: Mapping[str, Any],
    predictions: Predictions,
    pictures: Sequence[Picture],
    sheet: Path,
) -> None:
    """Write the pictures into `figures`, and `page` with all of them inside it.

    Args:
        page: the HTML file.
        figures: a folder, in which each picture becomes `NAME.svg`.
        heading: what the numbers are about, and what to know of it.
        metrics: `reports/metrics.json`.
        predictions: of the same run.
        pictures: in the order of the page.
        sheet: the contact sheet of the data card.
    """
    shown = []
    for picture in pictures:
        save(picture.figure, figures / f"{picture.name}.svg")
        shown.append(_entry(picture.name, picture.title, picture.words, figures))
    words = "The first training images of each class, a row a class."
    shown.append(
        {"name": "dataset", "title": "The images", "words": words, "source": _inline(sheet)}
    )
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    text = environment.from_string(template).render(
        heading=heading[0],
        note=heading[1],
        teachers=len(predictions.teachers),
        verdicts=_verdicts(metrics),
        tables=[_results(metrics), _significance(predictions), _classes(predictions)],
        pictures=shown,
    )
    with atomic_path(page) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _entry(name: str, title: str, words: str, figures: Path) -> dict[str, str]:
    source = _inline(figures / f"{name}.svg")
    return {"name": name, "title": title, "words": words, "source": source}


def _inline(path: Path) -> str:
    """A picture as an address that holds it: its ids and styles stay its own."""
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:{_TYPES[path.suffix]};base64,{content}"


def _verdicts(metrics: Mapping[str, Any]) -> list[str]:
    """What may be said, each with its interval, and at what cost."""
    cost, agreed = metrics["cost"], metrics["agreement"]["student_ensemble"]
    share = 100 * cost["student_macs"] / cost["ensemble_macs"]
    return [
        *claims(metrics),
        f"It takes {share:.0f}% of the ensemble's multiply-adds and gives its answer to "
        f"{agreed:.1f}% of the images.",
        "One run of one seed: other seeds move these numbers too (python -m meal table).",
    ]


def _results(metrics: Mapping[str, Any]) -> Table:
    rows = results_rows(metrics)
    note = (
        "ECE over 15 bins; scaled: after temperature scaling, fitted on validation. "
        "The fitted ensemble's weights are fitted there too."
    )
    scores = [
        *(metrics[name] for name in (STUDENT, BASELINE, ENSEMBLE, FITTED)),
        *metrics["teachers"].values(),
    ]
    if any(entry["temperature"] <= 1.01 * TEMPERATURES[0] for entry in scores):
        note += (
            f" A temperature that ends at its bound, {TEMPERATURES[0]}, says that every validation "
            "image is answered rightly: scaled answers are then as good as certain."
        )
    cells = [list(row.values()) for row in rows]
    return {"title": "Results", "columns": list(rows[0]), "rows": cells, "note": note}


def _significance(predictions: Predictions) -> Table:
    rows = []
    for rival in (ENSEMBLE, BASELINE):
        found = compare_models(
            predictions.labels, predictions.models[STUDENT], predictions.models[rival]
        )
        for measure, interval in found.intervals.items():
            p = f"{found.mcnemar.p:.3f}" if measure == ERROR else ""
            rows.append(
                [
                    f"student minus {RIVALS[rival]}",
                    measure,
                    f"{interval.difference:+.4f}",
                    f"{interval.low:+.4f} to {interval.high:+.4f}",
                    p,
                    found.reading(measure),
                ]
            )
    columns = ["models", "measure", "difference", "95% interval", "McNemar p", "reading"]
    note = (
        "Paired bootstrap over the test images; McNemar's exact test on the images that one of the "
        "two alone gets right. All measures are better when lower."
    )
    return {"title": "Significance", "columns": columns, "rows": rows, "note": note}


def _classes(predictions: Predictions) -> Table:
    """The classes on which the student errs most."""
    names = [plain(name) for name in predictions.card["classes"]]
    models = (STUDENT, ENSEMBLE, BASELINE)
    errors = {
        model: class_errors(predictions.models[model].answers, predictions.labels, len(names))
        for model in models
    }
    tested = [k for k in range(len(names)) if not math.isnan(errors[STUDENT][k])]
    worst = sorted(tested, key=lambda k: -errors[STUDENT][k])[:_WORST_CLASSES]
    rows = [[names[k], *(f"{errors[model][k]:.2f}" for model in models)] for k in worst]
    return {
        "title": f"Classes, the {len(rows)} with the most errors",
        "columns": ["class", *(f"{model} error (%)" for model in models)],
        "rows": rows,
        "note": "All classes: reports/classes.csv.",
    }
