"""The student against its rivals, within each run, over seeds and along one parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from meal.core.errors import UserError
from meal.evaluation.predictions import STUDENT, TEACHER, Predictions
from meal.evaluation.significance import Interval, error_difference, mean_interval
from meal.experiments.table import check_repeats, ordered

MODELS = ("baseline", "ensemble", "student")
BEST = "best teacher"  # the one with the fewest errors on the test images of a run
RIVALS = ("baseline", "ensemble", "ensemble_fitted", BEST)
ERRORS = {model: f"{model}.top1_error" for model in MODELS}
SCORES = tuple(ERRORS.values())


def margins(runs: pd.DataFrame, predictions: Mapping[str, Predictions]) -> pd.DataFrame:
    """One row per combination of parameters, over its seeds.

    Args:
        runs: one row per experiment: parameters, and the scores in `SCORES`.
        predictions: of each experiment, by its index in `runs`.

    Returns:
        The parameters that vary, and `seeds`, their number. `MODEL`: its mean error in percent,
        with the ends of its interval over the seeds (95%, Student's t) in `MODEL low` and
        `MODEL high`. `minus RIVAL`: the student's error minus the rival's, in points, with its
        interval over images and seeds.

    Raises:
        UserError: if two experiments have equal parameters, or other test images.
    """
    parameters = [key for key in runs.columns if key not in SCORES]
    varied = [key for key in parameters if runs[key].astype(str).nunique() > 1]
    factors = [key for key in varied if key.split(".")[-1] != "seed"]
    check_repeats(runs[varied].astype(str))
    text = runs[factors].astype(str)
    groups = runs.groupby([text[key] for key in factors]) if factors else [((), runs)]
    rows = []
    for values, own in groups:
        row: dict[str, object] = dict(zip(factors, values, strict=True)) | {"seeds": len(own)}
        for model, key in ERRORS.items():
            row |= _cells(model, mean_interval(own[key].astype(float).tolist()))
        found = [predictions[index] for index in own.index]
        for rival in RIVALS:
            row |= _cells(f"minus {rival}", _student_minus(rival, found))
        rows.append(row)
    return ordered(pd.DataFrame(rows), factors)


def most_repeated(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs behind the row with the most seeds, in a table that `margins` returns for them."""
    row, factors = table.iloc[int(table["seeds"].to_numpy().argmax())], _factors(table)
    return runs[(runs[factors].astype(str) == row[factors]).all(axis=1)]


def at_cost(runs: Sequence[Predictions], cost: Mapping[str, Any]) -> pd.DataFrame:
    """The mean error and the multiply-adds of each model.

    Args:
        runs: with the same networks.
        cost: of these, as in reports/scores.json.

    Returns:
        `model`, `macs`, `error`, and the ends of its interval over the runs, `low` and `high`; the
        student comes last.
    """
    macs = {TEACHER + name: each["macs"] for name, each in cost["teachers"].items()}
    macs |= {"ensemble": cost["ensemble_macs"]}
    macs |= dict.fromkeys(("baseline", STUDENT), cost["student_macs"])
    rows = []
    for model, price in macs.items():
        errors = [100.0 * float((~run.correct(model)).mean()) for run in runs]
        found = mean_interval(errors)
        rows.append((model, price, found.difference, found.low, found.high))
    return pd.DataFrame(rows, columns=["model", "macs", "error", "low", "high"])


def _factors(table: pd.DataFrame) -> list[str]:
    """The parameters in a table of `margins`."""
    return list(table.columns[: list(table.columns).index("seeds")])


def _student_minus(rival: str, runs: Sequence[Predictions]) -> Interval:
    """The student's error minus a rival's, paired within each run."""
    if len({(run.card.get("images"), run.labels.tobytes()) for run in runs}) > 1:
        raise UserError("the runs have different test images; choose some with --where")
    sides = [
        np.stack([run.correct(_name(model, run)) for run in runs]) for model in (STUDENT, rival)
    ]
    return error_difference(sides[0], sides[1], paired=True)


def _name(model: str, run: Predictions) -> str:
    """The name of a model among a run's predictions."""
    if model != BEST:
        return model
    return max((TEACHER + name for name in run.teachers), key=lambda name: run.correct(name).sum())


def _cells(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.difference, f"{name} low": interval.low, f"{name} high": interval.high}


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The same for people: intervals in brackets."""
    shown = table.copy()
    for name in [column for column in table.columns if f"{column} low" in table.columns]:
        decimals = "{:+.2f}" if name.startswith("minus") else "{:.2f}"
        ends = shown.pop(f"{name} low"), shown.pop(f"{name} high")
        shown[name] = [
            decimals.format(mean)
            + (f" ({decimals.format(low)} to {decimals.format(high)})" if low == low else "")
            for mean, low, high in zip(table[name], *ends, strict=True)
        ]
    return shown


def along(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """The rows along `key`: all, if each of its values occurs once, whatever else varies with it.

    Otherwise those with the most frequent values of all other parameters.

    Raises:
        UserError: if `key` does not vary.
    """
    factors = _factors(table)
    if key not in factors:
        others = ", ".join(factors) or "nothing"
        raise UserError(f"--along {key}: it does not vary; these do: {others}")
    rest = [factor for factor in factors if factor != key]
    if not rest or table[key].is_unique:
        return table
    groups = table.groupby(rest, sort=False)
    return max((own for _, own in groups), key=len).reset_index(drop=True)
