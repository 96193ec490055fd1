"""Scores of experiments over seeds: mean, std, and paired difference from a reference."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from meal.core.errors import UserError
from meal.core.settings import parse_yaml
from meal.evaluation.significance import mean_interval


def select(runs: pd.DataFrame, where: Mapping[str, str]) -> pd.DataFrame:
    """The rows whose parameters have the values in `where`, which are written as in YAML.

    Raises:
        UserError: if a key is not a parameter, or no row is left.
    """
    for key, text in where.items():
        if key not in runs.columns:
            raise UserError(f"{key}: not a parameter of these experiments")
        runs = runs[runs[key].astype(str) == _found(runs, key, text)]
    return runs


def summarise(runs: pd.DataFrame, reference: Mapping[str, str]) -> pd.DataFrame:
    """One row per combination of parameters, over its seeds.

    Args:
        runs: one row per experiment: parameters and `score`.
        reference: parameters of the experiments that each row is compared with, seed by seed; the
            others are the row's own.

    Returns:
        The parameters that vary, `seeds` (their number), `mean` and `std` of the score; with a
        reference, also `difference` (the mean over the seeds that both have), `low` and `high`, the
        ends of its 95% interval (Student's t; empty for fewer than two seeds), and `reading`.

    Raises:
        UserError: if no experiment has the values of `reference`.
    """
    parameters = [key for key in runs.columns if key != "score"]
    varied = [key for key in parameters if runs[key].astype(str).nunique() > 1]
    seeds = [key for key in varied if key.split(".")[-1] == "seed"]
    factors = [key for key in varied if key not in seeds]
    for key in reference:
        if key not in factors:
            raise UserError(f"{key}: it does not vary; these do: {', '.join(factors) or 'nothing'}")
    compared = {key: _found(runs, key, text) for key, text in reference.items()}
    scores = _scores(runs, factors, seeds)
    rows = []
    for factor_values, own in scores.items():
        series = pd.Series(own, dtype=float)
        row: dict[str, object] = dict(zip(factors, factor_values, strict=True))
        row |= {"seeds": len(own), "mean": series.mean(), "std": series.std()}
        if reference:
            other = tuple(
                compared.get(key, value) for key, value in zip(factors, factor_values, strict=True)
            )
            theirs = scores.get(other, {}) if other != factor_values else {}
            row |= _paired([own[seed] - theirs[seed] for seed in own if seed in theirs])
        rows.append(row)
    return ordered(pd.DataFrame(rows), factors)


def ordered(table: pd.DataFrame, factors: list[str]) -> pd.DataFrame:
    """The rows by the values of the factors: numbers in their order, then words."""
    if not factors:
        return table

    def key(column: pd.Series) -> pd.Series:
        return pd.Series([_place(value) for value in column])

    return table.sort_values(factors, key=key, ignore_index=True)


def _place(value: object) -> tuple[int, float, str]:
    """Sorts a value: `all` is more than any number of labels."""
    text = str(value)
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text


def check_repeats(text: pd.DataFrame) -> None:
    """Check that no two experiments have equal parameters: a repeated seed is not another one.

    Args:
        text: the parameters that vary, as text.

    Raises:
        UserError: naming the parameters.
    """
    # Rows without columns are no duplicates for pandas.
    repeated = text[text.duplicated(keep=False)] if len(text.columns) else text.iloc[1:]
    if len(repeated):
        common = ", ".join(f"{key}={value}" for key, value in repeated.iloc[0].items())
        named = f" ({common})" if common else ""
        raise UserError(
            f"experiments with equal parameters{named} have different scores: their code or number "
            "of threads differs; remove one "
            "of them with: dvc exp remove NAME"
        )


def _scores(
    runs: pd.DataFrame, factors: list[str], seeds: list[str]
) -> dict[tuple[str, ...], dict[tuple[str, ...], float]]:
    """The score of each run, by the values of the factors, then by those of the seeds."""
    text = runs[factors + seeds].astype(str)
    check_repeats(text)
    scores: dict[tuple[str, ...], dict[tuple[str, ...], float]] = {}
    for (_, row), score in zip(text.iterrows(), runs["score"], strict=True):
        scores.setdefault(tuple(row[factors]), {})[tuple(row[seeds])] = float(score)
    return scores


def _paired(differences: list[float]) -> dict[str, object]:
    """The mean difference with its interval, and what it says."""
    interval = mean_interval(differences)
    readings = {0: "", 1: "one seed gives no interval"}
    return {
        "difference": interval.difference,
        "low": interval.low,
        "high": interval.high,
        "reading": readings.get(len(differences), interval.reading),
    }


def _found(runs: pd.DataFrame, key: str, text: str) -> str:
    """The value of a parameter that `text` stands for."""
    values = runs[key].astype(str).unique()
    try:
        meant = {text, str(parse_yaml(text))}
    except ValueError:
        meant = {text}
    for value in values:
        if value in meant or (_number(text) is not None and _number(value) == _number(text)):
            return str(value)
    raise UserError(f"{key}={text}: no experiment has it; allowed: {', '.join(sorted(values))}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
