"""Reports on runs unlike the default one: with few or many teachers and classes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from meal.configure.defaults import changed
from meal.configure.schema import Params
from meal.core.text import escape
from meal.evaluation.comparison import compare_with_rivals, significance_table
from meal.evaluation.curves import write_tables
from meal.evaluation.predictions import Predictions
from meal.evaluation.scoring import ModelOutputs, score_models
from meal.metrics import log_softmax
from meal.report import pictures
from meal.report.page import write_page
from meal.report.settings import ReportSlice
from meal.report.tables import results_table
from tests.conftest import ROOT

COST = {"parameters": 1_000_000, "macs": 5_000_000, "bytes": 4_000_000}


def make_run(
    teachers: int, classes: int, noise: float = 1.0, names: list[str] | None = None
) -> tuple[dict[str, Any], Predictions]:
    """Metrics and predictions of a run with random predictions, all correct without noise."""
    labels, checked = np.arange(4 * classes) % classes, np.arange(2 * classes) % classes
    models = [f"teachers/t{k}" for k in range(teachers)]
    models += ["ensemble", "ensemble_fitted", "baseline", "student"]

    def outputs() -> Iterator[ModelOutputs]:
        for seed, name in enumerate(models):
            generator = np.random.default_rng(seed)
            sides = [
                log_softmax(
                    4 * np.eye(classes)[own] + noise * generator.normal(size=(len(own), classes))
                )
                for own in (labels, checked)
            ]
            yield ModelOutputs(name, sides[0], sides[1])

    card = {"classes": names or [f"class {k}" for k in range(classes)], "images": "0"}
    scores = score_models(outputs(), labels, checked, card)
    cost: dict[str, Any] = {f"student_{key}": value for key, value in COST.items()}
    cost |= {f"ensemble_{key}": teachers * value for key, value in COST.items()}
    cost["teachers"] = {f"t{k}": COST for k in range(teachers)}
    machine = {"processor": "a processor", "threads": 2, "torch": "1.0"}
    made = {**scores.metrics, "cost": cost, "run": machine, "training": {"baseline_steps": 520}}
    made["worth"] = [{"teacher": "a", "error": 1.0, "nll": 0.1, "weight": 1.0}]
    return made, scores.predictions


def curves(teachers: int, epochs: int, adversarial: bool) -> dict[str, pd.DataFrame]:
    rows: dict[str, Any] = {
        "epoch": range(1, epochs + 1),
        "validation_top1_error": np.linspace(40, 4, epochs),
    }
    student = {**rows, "similarity": np.linspace(2, 1, epochs)}
    if adversarial:
        student |= {"discriminator": 1.3, "discriminator_accuracy": np.linspace(90, 50, epochs)}
        student["validation_discriminator_accuracy"] = student["discriminator_accuracy"] - 5
    made = {"student": pd.DataFrame(student), "baseline": pd.DataFrame(rows)}
    return made | {f"teachers/t{k}": pd.DataFrame(rows) + k for k in range(teachers)}


def params(teachers: int) -> ReportSlice:
    """The parameters of a run, as `configure` writes them."""
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    given["teachers"] = [f"t{k}" for k in range(teachers)]
    given["networks"] |= {name: {"arch": "vgg19", "width": 0.5} for name in given["teachers"]}
    checked = Params.model_validate(given)
    given = checked.model_dump(mode="json", exclude={"runtime"})
    student = checked.baseline_training.model_dump()
    training = {
        "baseline": student | {"lr": 0.25, "schedule": "step", "milestones": [7]},
        "student": student,
    }
    return ReportSlice(params=given, changed=changed(checked), training=training)


def write(
    folder: Path,
    metrics: dict[str, Any],
    predictions: Predictions,
    epochs: int = 5,
    adversarial: bool = True,
) -> str:
    """Write a page, as the stage does."""
    Image.new("RGB", (40, 30)).save(folder / "dataset.png")
    teachers = len(predictions.teachers)
    pixels = np.random.default_rng(0).integers(0, 255, (len(predictions.labels), 8, 8, 3))
    drawn = [
        pictures.error_against_cost(metrics),
        pictures.training_curves(curves(teachers, epochs, adversarial)),
        pictures.reliability(predictions),
        pictures.confusion_matrices(predictions),
        pictures.error_similarity(predictions),
        pictures.seen_differently(predictions, lambda rows: pixels[list(rows)].astype(np.uint8)),
    ]
    (folder / "figures").mkdir(exist_ok=True)
    write_page(
        folder / "index.html", folder / "figures", "A run, and more",
        params(teachers), metrics, predictions,
        [picture for picture in drawn if picture],
        significance_table(compare_with_rivals(predictions)), folder / "dataset.png",
        {"cost": {"student_macs": -1}},
    )  # fmt: skip
    return (folder / "index.html").read_text()


@pytest.mark.parametrize(
    ("teachers", "classes", "epochs", "adversarial", "noise"),
    [(1, 2, 1, False, 3.0), (8, 10, 5, True, 2.0), (3, 100, 30, True, 1.0), (2, 5, 3, True, 0.0)],
)
def test_the_report_on_any_run_has_every_figure_and_well_formed_tables(
    teachers: int, classes: int, epochs: int, adversarial: bool, noise: float, tmp_path: Path
) -> None:
    metrics, predictions = make_run(teachers, classes, noise)
    page = write(tmp_path, metrics, predictions, epochs, adversarial)
    assert "nan" not in re.sub('base64,[^"]*', "", page)
    for table in re.findall(r"<table>.*?</table>", page, flags=re.DOTALL):
        width = table.count("<th ")
        for row in re.findall(r"<tr[^>]*>.*?</tr>", table.split("<tbody>")[1], flags=re.DOTALL):
            assert row.count("<td>") == width
    optimised = page[page.index("<h2>Optimisation</h2>") :]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", optimised[: optimised.index("</table>")])
    named = {row.split("</td>")[0].removeprefix("<td>"): row for row in rows}
    assert "<td>520</td>" in named["baseline"] and "<td>unknown</td>" in named["student"]
    assert "<td>0.25</td>" in named["baseline"] and "<td>0.25</td>" not in named["student"]
    assert "<td>[7]</td>" in named["baseline"] and "<td>[]</td>" in named["student"]
    lines = results_table(metrics).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert ("top-5" in lines[0]) == (classes > 5)
    drawn = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert drawn >= {"error_cost", "training", "reliability", "confusion", "error_similarity"}
    assert ("seen_differently" in drawn) == (noise > 0)
    training = (tmp_path / "figures" / "training.svg").read_text()
    assert ("accuracy of the discriminators" in training) == adversarial
    costs = (tmp_path / "figures" / "error_cost.svg").read_text()
    for name in ("student", "baseline", "ensemble", *(f"t{k}" for k in range(teachers))):
        assert f">{name}: " in costs  # in the legend, with its numbers


def test_the_page_names_its_run(tmp_path: Path) -> None:
    metrics, predictions = make_run(2, 3)
    metrics["cost"] |= {"student_macs": 23, "ensemble_macs": 10_000}
    page = write(tmp_path, metrics, predictions)
    assert "<title>resnet from t0, t1: A run</title>" in page
    assert "<h1>resnet (resnet18, width 0.125), distilled from 2 teachers</h1>" in page
    for words in (
        "t0 (vgg19, width 0.5), t1 (vgg19, width 0.5)", "digits; labelled: 200; seed 0",
        "temperature 4, logits only, adversarial: minimax",
        "Computed on a processor with 2 thread(s), torch 1.0",
        "needs 0.23% of the ensemble", "weight_decay: 0.0005", "changed</dt><dd>teachers: [&#39;t0",
    ):  # fmt: skip
        assert words in page, words


def test_the_confusion_matrix_has_counts_and_full_rows_of_images() -> None:
    _, predictions = make_run(2, 5, noise=2.0)
    (axis, _) = pictures.confusion_matrices(predictions).figure.axes
    counts = [int(text.get_text()) for text in axis.texts]
    assert sum(counts) == len(predictions.labels)
    pixels = np.zeros((len(predictions.labels), 8, 8, 3), np.uint8)
    picture = pictures.seen_differently(predictions, lambda rows: pixels[list(rows)])
    assert picture is not None
    assert all(axis.images for axis in picture.figure.axes)  # no place is left empty


def test_the_pair_in_the_caption_is_in_the_picture() -> None:
    _, predictions = make_run(2, 100, noise=2.0)
    picture = pictures.confusion_matrices(predictions)
    named = re.search(r"most often mistakes (class \d+) for (class \d+):", picture.words)
    assert named
    shown = {label.get_text() for label in picture.figure.axes[0].get_xticklabels()}
    assert set(named.groups()) <= shown and len(shown) == 20


def test_long_names_stay_distinct_and_no_name_is_a_formula(tmp_path: Path) -> None:
    names = ["a very long name of a class, one", "a very long name of a class, two", "$x$_y$"]
    metrics, predictions = make_run(1, 3, names=names)
    picture = pictures.confusion_matrices(predictions)
    shown = [label.get_text() for label in picture.figure.axes[0].get_xticklabels()]
    assert len(set(shown)) == 3
    write(tmp_path, metrics, predictions)


def test_a_class_without_test_images_is_not_reported_as_perfect(tmp_path: Path) -> None:
    metrics, made = make_run(1, 3)
    predictions = Predictions(
        made.labels, made.models, made.vote, {**made.card, "classes": ["a", "b", "c", "untested"]}
    )
    assert "untested" not in write(tmp_path, metrics, predictions)
    write_tables(predictions, tmp_path)
    assert "untested" not in (tmp_path / "classes.csv").read_text()


def test_the_confusion_table_includes_classes_that_are_never_predicted(tmp_path: Path) -> None:
    _, predictions = make_run(1, 4)
    predictions.models["student"].predicted[:] = 2
    write_tables(predictions, tmp_path)
    counts = pd.read_csv(tmp_path / "confusion.csv")
    assert len(counts) == 16 and set(counts["prediction"]) == set(counts["label"])


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("two\nlines", "two lines"),
        ("<script>", r"\<script\>"),
        ("*bold* `code`", r"\*bold\* \`code\`"),
        ("right\u202eleft", "rightleft"),
        ("_set_ ~apart~ $x$ &lt;", r"\_set\_ \~apart\~ \$x\$ \&lt;"),
        ("distill.label_weight", "distill.label_weight"),
    ],
)
def test_markdown_in_foreign_names_is_escaped(name: str, escaped: str) -> None:
    assert escape(name) == escaped
