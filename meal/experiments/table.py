"""Scores of experiments over seeds: mean, deviation, and the paired difference to a reference."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import yaml
from scipy import stats

CONFIDENCE = 0.95


def select(runs: pd.DataFrame, where: Mapping[str, str]) -> pd.DataFrame:
    """The rows whose parameters have the values of `where`, written as in YAML.

    Raises:
        ValueError: if a key is not a parameter, or no row is left.
    """
    for key, text in where.items():
        if key not in runs.columns:
            raise ValueError(f"{key}: not a parameter of these experiments")
        runs = runs[runs[key].astype(str) == _found(runs, key, text)]
    return runs


def summarise(runs: pd.DataFrame, reference: Mapping[str, str]) -> pd.DataFrame:
    """One row for each combination of parameters, over its seeds.

    Args:
        runs: a row an experiment: parameters, and `score`.
        reference: what a row is compared with: itself with these parameters instead, seed by seed.

    Returns:
        The parameters that vary, `seeds` (how many), `mean` and `deviation` of the score, and
        with a reference `difference` (mean over the seeds that both have), `low` and `high`, the
        ends of its 95% interval (Student's t; empty with fewer than two seeds), and `reading`.

    Raises:
        ValueError: if `reference` is not a value that some experiment has.
    """
    parameters = [key for key in runs.columns if key != "score"]
    varied = [key for key in parameters if runs[key].astype(str).nunique() > 1]
    seeds = [key for key in varied if key.split(".")[-1] == "seed"]
    factors = [key for key in varied if key not in seeds]
    for key in reference:
        if key not in factors:
            raise ValueError(f"{key}: not varied here; varied: {', '.join(factors) or 'nothing'}")
    compared = {key: _found(runs, key, text) for key, text in reference.items()}
    text = runs[factors + seeds].astype(str)
    scores = {
        (tuple(row[factors]), tuple(row[seeds])): score
        for (_, row), score in zip(text.iterrows(), runs["score"], strict=True)
    }
    if len(scores) != len(runs):
        again = text[text.duplicated(keep=False)].iloc[0].to_dict()
        raise ValueError(
            f"experiments of equal parameters have unequal scores ({again}): other code or another "
            "number of threads; remove one of them with: dvc exp remove NAME"
        )
    rows = []
    for factor_values in dict.fromkeys(values for values, _ in scores):
        own = {seed: score for (values, seed), score in scores.items() if values == factor_values}
        series = pd.Series(own, dtype=float)
        row = dict(zip(factors, factor_values, strict=True))
        row |= {"seeds": len(own), "mean": series.mean(), "deviation": series.std()}
        if reference:
            other = tuple(
                compared.get(key, value) for key, value in zip(factors, factor_values, strict=True)
            )
            pairs = [
                score - scores[other, seed]
                for seed, score in own.items()
                if (other, seed) in scores
            ]
            row |= _paired(pairs if other != factor_values else [])
        rows.append(row)
    return pd.DataFrame(rows).sort_values(factors, ignore_index=True)


def _paired(differences: list[float]) -> dict[str, object]:
    """Mean difference with its interval, and what it says."""
    series = pd.Series(differences, dtype=float)
    half = float("nan")
    if len(series) > 1:
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(series) - 1)
        half = float(quantile * series.std() / len(series) ** 0.5)
    mean = series.mean()
    if series.empty:
        reading = ""
    elif pd.isna(half):
        reading = "one seed says nothing"
    elif mean - half <= 0 <= mean + half:
        reading = "inside the noise"
    else:
        reading = "lower" if mean < 0 else "higher"
    return {"difference": mean, "low": mean - half, "high": mean + half, "reading": reading}


def _found(runs: pd.DataFrame, key: str, text: str) -> str:
    """The value of a parameter that `text` means; `off` is a word and not a truth value."""
    values = runs[key].astype(str).unique()
    try:
        meant = {text, str(yaml.safe_load(text))}
    except yaml.YAMLError:
        meant = {text}
    for value in values:
        if value in meant or (_number(text) is not None and _number(value) == _number(text)):
            return str(value)
    raise ValueError(f"{key}={text}: no experiment has it; there are: {', '.join(sorted(values))}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
