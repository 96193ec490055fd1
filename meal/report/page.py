"""The report: one self-contained HTML page."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, StrictUndefined

from meal.core.files import atomic_path
from meal.core.text import plain
from meal.evaluation.comparison import claims
from meal.evaluation.metrics import TEMPERATURES, class_errors
from meal.evaluation.predictions import BASELINE, ENSEMBLE, FITTED, STUDENT, Predictions
from meal.report.figures import save
from meal.report.settings import ReportSlice
from meal.report.tables import (
    results_rows,
    run_note,
    timings_note,
    timings_rows,
    worth_note,
    worth_rows,
)

if TYPE_CHECKING:
    from meal.report.pictures import Picture

_WORST_CLASSES = 10
# Settings of the optimisation that one optimizer has, and values of others that change nothing.
_OF = {
    "momentum": ("optimizer", "sgd"),
    "nesterov": ("optimizer", "sgd"),
    "betas": ("optimizer", "adamw"),
}
_NEUTRAL: dict[str, Any] = {
    "milestones": [],
    "decay_norms": True,
    "clip_norm": None,
    "label_smoothing": 0.0,
    "early_stopping": None,
    "ema": 0.0,
    "layer_decay": 1.0,
    "frozen": [],
}
_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}

Table = dict[str, Any]  # title, columns, rows of text, note


def write_page(
    page: Path,
    figures: Path,
    heading: str,
    config: ReportSlice,
    metrics: Mapping[str, Any],
    predictions: Predictions,
    pictures: Sequence[Picture],
    significance: Sequence[Mapping[str, str]],
    sheet: Path,
    timings: Mapping[str, Any],
) -> None:
    """Write the pictures into `figures`, and `page`, which contains them.

    Args:
        page: the HTML file.
        figures: the folder in which each picture becomes `NAME.svg`.
        heading: the dataset with its labels and images.
        config: the parameters of the run.
        metrics: `reports/scores.json`.
        predictions: of the same run.
        pictures: in the order in which the page shows them.
        significance: the rows that `evaluate` wrote.
        sheet: the contact sheet of the data card.
        timings: `reports/timings.json`; shown if its networks cost as much as these.
    """
    params, shown = config.params, []
    for picture in pictures:
        save(picture.figure, figures / f"{picture.name}.svg")
        shown.append(_entry(picture.name, picture.title, picture.words, figures))
    words = "The first labelled images of each class, one row per class; then unlabelled ones."
    shown.append(
        {"name": "dataset", "title": "The images", "words": words, "source": _inline(sheet)}
    )
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    text = environment.from_string(template).render(
        heading=heading,
        title=_title(params, heading),
        student=_network(params, params["student"]),
        members=[_network(params, name) for name in params["teachers"]],
        facts={**_facts(params, metrics), "changed": _changed(config.changed)},
        params=yaml.safe_dump(dict(params), sort_keys=False),
        verdicts=_verdicts(metrics),
        tables=[
            _results(metrics),
            _significance(significance),
            _training(config.training, metrics.get("training", {}), params["distill"]["init"]),
            _worth(metrics["worth"]),
            *_timings(timings, metrics["cost"]),
            _classes(predictions),
        ],
        pictures=shown,
    )
    with atomic_path(page) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _title(params: Mapping[str, Any], heading: str) -> str:
    """What tells this run's tab from others'."""
    return f"{params['student']} from {', '.join(params['teachers'])}: {heading.split(',')[0]}"


def _network(params: Mapping[str, Any], name: str) -> str:
    """A network's name, and what it stands for."""
    network = params["networks"][name]
    width = f", width {network['width']:g}" if network["width"] != 1 else ""
    return f"{name} ({network['arch']}{width})"


def _facts(params: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, str]:
    """What distinguishes this run: the images, the method, the seed, the machine."""
    data, method, views = params["data"], params["distill"], params["views"]
    source = params["dataset"] + (f", {data['root']}" if data["root"] else "")
    blocks = f"blocks {method['blocks']}" if method["blocks"] else "logits only"
    return {
        "images": f"{source}; labelled: {data['labelled']}; seed {params['seed']}",
        "method": (
            f"teacher selection {method['selection']}, targets of the {method['targets']}, "
            f"temperature {method['temperature']:g}, {blocks}, adversarial: "
            f"{method['adversarial']}, label weight {method['label_weight']:g}; "
            f"{method['epochs']} epochs, {views['count']} cached views"
        ),
        "machine": run_note(metrics).partition(";")[0],
    }


def _changed(values: Mapping[str, Any]) -> str:
    """The parameters that differ from the defaults, as text."""
    words = [f"{key}: {value}" for key, value in values.items()]
    return "; ".join(words) or "nothing: these are the defaults"


def _percent(value: float) -> str:
    """A percentage with two digits at least, also below one."""
    return f"{value:.0f}%" if value >= 10 else f"{value:.2g}%"


def _entry(name: str, title: str, words: str, figures: Path) -> dict[str, str]:
    source = _inline(figures / f"{name}.svg")
    return {"name": name, "title": title, "words": words, "source": source}


def _inline(path: Path) -> str:
    """A picture as a data URL, which keeps its ids and styles apart from other pictures'."""
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:{_TYPES[path.suffix]};base64,{content}"


def _verdicts(metrics: Mapping[str, Any]) -> list[str]:
    """The claims with their intervals, and the cost."""
    cost, agreed = metrics["cost"], metrics["agreement"]["student_ensemble"]
    percent = 100 * cost["student_macs"] / cost["ensemble_macs"]
    return [
        *claims(metrics),
        f"The student needs {_percent(percent)} of the ensemble's multiply-adds and agrees with it "
        f"on {agreed:.1f}% of the images.",
        "This is one run with one seed; other seeds change these numbers (python -m meal table).",
    ]


def _table(title: str, rows: Sequence[Mapping[str, str]], note: str) -> Table:
    """Rows of text, with their keys as columns."""
    cells = [list(row.values()) for row in rows]
    return {"title": title, "columns": list(rows[0]), "rows": cells, "note": note}


def _results(metrics: Mapping[str, Any]) -> Table:
    rows = results_rows(metrics)
    note = (
        "ECE over 15 bins; scaled: after temperature scaling, fitted on validation. "
        "The weights of the fitted ensemble are also fitted there."
    )
    scores = [
        *(metrics[name] for name in (STUDENT, BASELINE, ENSEMBLE, FITTED)),
        *metrics["teachers"].values(),
    ]
    if any(entry["temperature"] <= 1.01 * TEMPERATURES[0] for entry in scores):
        note += (
            f" A temperature at its lower bound of {TEMPERATURES[0]} means that every validation "
            "image is predicted correctly: scaled probabilities are then close to 0 and 1."
        )
    return _table("Results", rows, note)


def _significance(table: Sequence[Mapping[str, str]]) -> Table:
    rows = [
        [
            row["models"],
            row["metric"],
            row["difference"],
            f"{row['low']} to {row['high']}",
            row["mcnemar_p"],
            row["reading"],
        ]
        for row in table
    ]
    columns = ["models", "metric", "difference", "95% interval", "McNemar p", "reading"]
    note = (
        "Intervals over the test images: for the error close to Bonett and Price's, for the others "
        "a paired bootstrap. McNemar's exact test is on the images that only one of the two "
        "predicts correctly. All metrics are better when lower."
    )
    return {"title": "Significance", "columns": columns, "rows": rows, "note": note}


def _training(
    settings: Mapping[str, Mapping[str, Any]], steps: Mapping[str, int], init: object
) -> Table:
    """How baseline and student were optimised, side by side."""
    sides = list(settings.values())
    keys = [key for key in settings[STUDENT] if any(_has_effect(key, side) for side in sides)]
    rows = [
        [name, str(steps.get(f"{name}_steps", "unknown")), *(str(own[key]) for key in keys)]
        for name, own in settings.items()
    ]
    note = "Steps include those behind the weights that a network starts from."
    if init is not None:
        note += " The student starts from distill.init, the baseline from random weights."
    columns = ["model", "steps", *(key.replace("_", " ") for key in keys)]
    return {"title": "Optimisation", "columns": columns, "rows": rows, "note": note}


def _has_effect(key: str, settings: Mapping[str, Any]) -> bool:
    """Whether a setting of the optimisation does anything, beside the others."""
    if key in _OF:
        return bool(settings[_OF[key][0]] == _OF[key][1])
    if key == "lr_gamma":
        return bool(settings["milestones"])
    return key not in _NEUTRAL or settings[key] != _NEUTRAL[key]


def _worth(found: Sequence[Mapping[str, Any]]) -> Table:
    """What each teacher is worth to the ensemble."""
    return _table("Teachers", worth_rows(found), worth_note(found))


def _timings(timings: Mapping[str, Any], cost: Mapping[str, Any]) -> list[Table]:
    """The table of timings, if they are of networks like these."""
    own = {key: value for key, value in cost.items() if key != "teachers"}
    if timings.get("cost") != own:
        return []
    return [_table("Speed", timings_rows(timings), timings_note(timings))]


def _classes(predictions: Predictions) -> Table:
    """The classes on which the student's error is highest."""
    names = [plain(name) for name in predictions.card["classes"]]
    models = (STUDENT, ENSEMBLE, BASELINE)
    errors = {
        model: class_errors(predictions.models[model].predicted, predictions.labels, len(names))
        for model in models
    }
    tested = [k for k in range(len(names)) if not math.isnan(errors[STUDENT][k])]
    worst = sorted(tested, key=lambda k: -errors[STUDENT][k])[:_WORST_CLASSES]
    rows = [[names[k], *(f"{errors[model][k]:.2f}" for model in models)] for k in worst]
    return {
        "title": f"The {len(rows)} classes with the highest error",
        "columns": ["class", *(f"{model} error (%)" for model in models)],
        "rows": rows,
        "note": "All classes: reports/classes.csv.",
    }
