"""The student against its rivals, within each run, over seeds and along one parameter."""

from __future__ import annotations

import pandas as pd

from meal.core.errors import UserError
from meal.evaluation.significance import mean_interval
from meal.experiments.table import check_repeats

MODELS = ("baseline", "ensemble", "student")
# The metric of each rival: how much lower the student's error is.
RIVALS = {
    "baseline": "gain.over_baseline",
    "ensemble": "gain.over_ensemble",
    "best teacher": "gain.over_best_teacher",
}
ERRORS = {model: f"{model}.top1_error" for model in MODELS}
SCORES = (*ERRORS.values(), *RIVALS.values())


def margins(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per combination of parameters, over its seeds.

    Args:
        runs: one row per experiment: parameters, and the scores in `SCORES`.

    Returns:
        The parameters that vary, and `seeds`, their number. `MODEL`: its mean error in percent.
        `minus RIVAL`: the student's error minus the rival's, in points. Each has an interval (95%,
        Student's t) in `NAME low` and `NAME high`.

    Raises:
        UserError: if two experiments have equal parameters.
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
        columns = {model: (own[key], 1) for model, key in ERRORS.items()}
        columns |= {f"minus {rival}": (own[key], -1) for rival, key in RIVALS.items()}
        for name, (scores, sign) in columns.items():
            interval = mean_interval((sign * scores.astype(float)).tolist())
            row[name] = interval.difference
            row |= {f"{name} low": interval.low, f"{name} high": interval.high}
        rows.append(row)
    return (
        pd.DataFrame(rows).sort_values(
            factors,
            key=lambda column: pd.Series([order(value) for value in column]),
            ignore_index=True,
        )
        if factors
        else pd.DataFrame(rows)
    )


def order(value: object) -> tuple[int, float, str]:
    """Numbers in their order, then words: `all` is more than any number of labels."""
    text = str(value)
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text


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
    """The rows of the most frequent values of all parameters but `key`, in its order.

    Raises:
        UserError: if `key` does not vary.
    """
    factors = list(table.columns[: list(table.columns).index("seeds")])
    if key not in factors:
        others = ", ".join(factors) or "nothing"
        raise UserError(f"--along {key}: it does not vary; these do: {others}")
    rest = [factor for factor in factors if factor != key]
    if not rest:
        return table
    groups = table.groupby(rest, sort=False)
    return max((own for _, own in groups), key=len).reset_index(drop=True)
