"""Advice: whether to distill, from the facts of a run and a forecast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from meal.advice.facts import Facts
from meal.advice.forecast import COVERAGE, Forecast, Quality, forecast, quality
from meal.evaluation.significance import Interval, rate_interval

DISTILL = "Distill"
STOP = "Do not distill"
COLLECT = "Collect unlabelled images"
_ROOM = 0.25  # the share of the errors of the baseline that must be due to overfitting


@dataclass(frozen=True)
class Hindsight:
    """What the verdict from facts alone would have been for the runs of the studies.

    Runs that left images without a label out of the pool are controls, and do not count.

    Attributes:
        distilled, others: the runs for which it is `DISTILL`, and the others.
        gained, missed: those of each in which the student's test error is below the baseline's.
    """

    distilled: int
    gained: int
    others: int
    missed: int


@dataclass(frozen=True)
class Advice:
    """What to do and why.

    Attributes:
        verdict: `DISTILL`, `STOP` or `COLLECT`.
        reason: a sentence without its first capital.
        facts: of the run.
        expected: of its student; None if no forecast is possible.
        fit: the quality of forecasts.
        hindsight: the quality of verdicts from facts alone.
    """

    verdict: str
    reason: str
    facts: Facts
    expected: Forecast | None
    fit: Quality
    hindsight: Hindsight

    def lines(self) -> Iterator[str]:
        """The advice as text; the first line says what to do."""
        yield f"{self.verdict}: {self.reason}."
        yield ""
        rows = _rows(self.facts)
        width = max(map(len, rows))
        for name, text in rows.items():
            yield f"  {name:{width}}  {text}"
        yield ""
        if self.expected is None:
            yield _hindsight_line(self.hindsight)
        yield _forecast_line(self.expected, self.fit)


def advise(facts: Facts, runs: pd.DataFrame) -> Advice:
    """Advise on a run, from its facts and the runs of the studies."""
    fit = quality(runs)
    expected = forecast(facts, runs, fit.half_width) if fit.useful else None
    extrapolated = expected is not None and expected.outside
    verdict, reason = _verdict(facts, None if extrapolated else expected)
    return Advice(verdict, reason, facts, expected, fit, hindsight(runs))


def hindsight(runs: pd.DataFrame) -> Hindsight:
    """Compare verdicts from the facts of the studies' runs with what their students gained."""
    whole = runs[runs["hidden"] == 0]
    names = [field.name for field in fields(Facts)]
    every = [Facts(*row) for row in whole[names].itertuples(index=False)]
    said = np.array([_verdict(facts, None)[0] == DISTILL for facts in every], dtype=bool)
    better = (whole["student_test"] < whole["baseline_test"]).to_numpy()
    return Hindsight(
        int(said.sum()), int((said & better).sum()), int((~said).sum()), int((~said & better).sum())
    )


def _verdict(facts: Facts, expected: Forecast | None) -> tuple[str, str]:
    """What to do, and why: from the forecast if there is one, else from the facts alone."""
    baseline, ensemble = _error(facts, facts.baseline_error), _error(facts, facts.ensemble_error)
    if ensemble.low > baseline.high:
        return STOP, (
            f"the ensemble's error ({facts.ensemble_error:.2f}%) is above the baseline's "
            f"({facts.baseline_error:.2f}%); train better teachers"
        )
    if expected is not None and expected.high < 1:
        return DISTILL, f"the forecast is {_change(expected)}"
    if baseline.high - facts.baseline_train_error < _ROOM * baseline.high:
        return STOP, (
            "the baseline does not overfit, so soft targets have little to add, unless it has "
            f"trained too little: its training error is {facts.baseline_train_error:.2f}%"
        )
    if facts.hidden:
        return DISTILL, (
            f"but with distill.pool=all, so that the student sees {facts.hidden:,} images without "
            "a label"
        )
    if expected is not None and facts.unlabelled >= facts.labels:
        return STOP, f"the forecast is {_change(expected)}, so a gain is not certain"
    if facts.unlabelled < facts.labels:
        return COLLECT, (
            f"there are {facts.unlabelled:,} for {facts.labels:,} labels, and a student gains by "
            "following its teachers where no label is"
        )
    return DISTILL, f"there are {facts.unlabelled:,} unlabelled images to learn from"


def _error(facts: Facts, error: float) -> Interval:
    """An error on validation, in percent, with its interval."""
    return rate_interval(round(error / 100 * facts.validation), facts.validation)


def _rows(facts: Facts) -> dict[str, str]:
    baseline = _error(facts, facts.baseline_error)
    gain = facts.best_teacher_error - facts.ensemble_error
    rows = {
        "labels": f"{facts.labels:,} for training, {facts.labels / facts.classes:.1f} per class",
        "unlabelled": f"{facts.unlabelled:,} images"
        + (f"; {facts.hidden:,} more are outside distill.pool" if facts.hidden else ""),
        "baseline": f"error {facts.baseline_train_error:.2f}% on its training images, "
        f"{facts.baseline_error:.2f}% ({baseline.low:.1f} to {baseline.high:.1f}) on "
        f"{facts.validation:,} validation images",
        "ensemble": f"error {facts.ensemble_error:.2f}% on validation",
        "capacity": f"{facts.student_parameters / facts.teacher_parameters:.2f} of a teacher's "
        f"parameters, {facts.student_macs / facts.ensemble_macs:.0%} of the ensemble's cost",
    }
    if facts.teachers > 1:
        rows["ensemble"] += f", its best teacher {facts.best_teacher_error:.2f}%: {_better(gain)}"
        rows["diversity"] = (
            f"a teacher and the others differ on {facts.disagreement:.2f}% of the images"
        )
    return rows


def _better(gain: float) -> str:
    """By how many points the ensemble's error is lower than its best teacher's."""
    if gain == 0:
        return "no better"
    return f"{abs(gain):.2f} points {'better' if gain > 0 else 'worse'}"


def _hindsight_line(found: Hindsight) -> str:
    return (
        f'In hindsight, these rules say "{DISTILL}" for {found.distilled} of '
        f"{found.distilled + found.others} runs: the student was better than the baseline in "
        f"{found.gained} of them, and in {found.missed} of the others."
    )


def _forecast_line(expected: Forecast | None, fit: Quality) -> str:
    tested = (
        f"fitted on {fit.runs} runs; mean error {fit.run:.0%} for a run left out (the mean alone: "
        f"{fit.constant_run:.0%})"
    )
    if fit.datasets > 1:
        tested += f", {fit.dataset:.0%} for a dataset left out ({fit.constant_dataset:.0%})"
    if expected is None:
        return f"No forecast, as the mean of all runs is as good: {tested}."
    line = f"Forecast: {_change(expected)}, with {COVERAGE:.0%} confidence; {tested}."
    if expected.outside:
        line += f" Not used above: no such run was studied ({', '.join(expected.outside)})."
    return line


def _change(found: Forecast) -> str:
    """The student's errors against the baseline's, with the interval."""
    ends = f"{_percent(found.high)} to {_percent(found.low)}"
    return f"{_percent(found.ratio)} errors than the baseline ({ends})"


def _percent(ratio: float) -> str:
    return f"{abs(1 - ratio):.0%} {'fewer' if ratio <= 1 else 'more'}"
