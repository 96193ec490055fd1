"""Predictions as text, written as they come: a table, JSON or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Literal

from meal.core.text import printable
from meal.predict.files import Prediction
from meal.predict.session import Probabilities

Format = Literal["table", "json", "csv"]
_WIDEST = 60  # characters of a path in a table


def write_predictions(
    predictions: Iterable[Prediction],
    paths: Sequence[Path],
    classes: Sequence[str],
    top: int,
    form: Format,
    out: IO[str],
) -> list[Prediction]:
    """Write the most likely classes of each file; return the files that could not be read.

    Args:
        predictions: in the order in which they are written.
        paths: all files, for the width of the table's first column.
        classes: the names of the classes.
        top: the number of classes per file.
        form: `table` for people; `json`: a list of objects; `csv`: a row per file and class.
        out: where to write.
    """
    write = {"table": _write_table, "json": _write_json, "csv": _write_csv}[form]
    faults: list[Prediction] = []

    def answers() -> Iterator[tuple[Path, list[tuple[str, float]]]]:
        for each in predictions:
            if each.probabilities is None:
                faults.append(each)
            else:
                yield each.path, _most_likely(each.probabilities, classes, top)

    longest = max((len(printable(path)) for path in paths), default=0)
    write(answers(), min(longest, _WIDEST), out)
    return faults


Answers = Iterable[tuple[Path, list[tuple[str, float]]]]


def _most_likely(
    probabilities: Probabilities, classes: Sequence[str], top: int
) -> list[tuple[str, float]]:
    order = (-probabilities).argsort(kind="stable")[:top]
    return [(classes[k], float(probabilities[k])) for k in order]


def _write_table(answers: Answers, width: int, out: IO[str]) -> None:
    for path, found in answers:
        shown = "   ".join(f"{printable(name)} {100 * value:.2f}%" for name, value in found)
        out.write(f"{printable(path):{width}}  {shown}\n")


def _write_json(answers: Answers, width: int, out: IO[str]) -> None:
    separator = "[\n"
    for path, found in answers:
        rows = [{"class": name, "probability": round(value, 6)} for name, value in found]
        out.write(separator + json.dumps({"file": str(path), "predictions": rows}))
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_csv(answers: Answers, width: int, out: IO[str]) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["file", "rank", "class", "probability"])
    for path, found in answers:
        for rank, (name, value) in enumerate(found, 1):
            writer.writerow([path, rank, name, f"{value:.6f}"])
