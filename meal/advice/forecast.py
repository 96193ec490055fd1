"""A forecast of the student's errors, fitted on the runs of this project's studies.

It predicts the logarithm of (errors of the student) / (errors of the baseline), on test images, by
ridge regression on four facts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from meal.advice.facts import Facts
from meal.core.errors import UserError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

STUDIES = Path(__file__).with_name("studies.csv")
COVERAGE = 0.8  # of the intervals
_PRIOR = 10.0  # shrinks the effect of each feature as if so many runs had shown none
_TEXT = ("dataset", "labelled", "student", "pool")  # columns that are no numbers
_POSITIVE = ("classes", "labels", "validation", "test")
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """How far forecasts of left-out runs are from what they measured.

    Mean absolute errors of the logarithm, so roughly relative errors. A constant forecasts the mean
    of the other runs.

    Attributes:
        runs, datasets: their numbers.
        run, constant_run: leaving out one run at a time; others of its setting stay.
        dataset, constant_dataset: leaving out all runs of a dataset; infinite for a single one.
        half_width: of the interval that holds `COVERAGE` of the runs of left-out datasets.
    """

    runs: int
    datasets: int
    run: float
    constant_run: float
    dataset: float
    constant_dataset: float
    half_width: float

    @property
    def useful(self) -> bool:
        """Whether the forecast is better than a constant, also on a dataset left out."""
        return self.run < self.constant_run and self.dataset < self.constant_dataset


@dataclass(frozen=True)
class Forecast:
    """The student's errors divided by the baseline's.

    Attributes:
        ratio, low, high: the expected ratio, and its interval.
        outside: the features that lie beyond those of all runs, so that this is extrapolated.
    """

    ratio: float
    low: float
    high: float
    outside: tuple[str, ...] = ()


def features(facts: pd.DataFrame) -> pd.DataFrame:
    """What the regression sees: a column of numbers for each feature."""
    labels = facts["labels"].astype(float)
    least = 50 / facts["validation"]  # half an image stands for no error
    baseline, ensemble = (
        np.maximum(facts[f"{model}_error"], least) for model in ("baseline", "ensemble")
    )
    return pd.DataFrame(
        {
            "labels per class": np.log(labels / facts["classes"]),
            "images per label": np.log((labels + facts["unlabelled"]) / labels),
            "overfitting": np.maximum(baseline - facts["baseline_train_error"], 0) / baseline,
            "the ensemble's errors": np.log(ensemble / baseline),
        }
    )


def read_studies(more: Path | None = None) -> pd.DataFrame:
    """The runs of the studies: setting, facts, and test errors in percent.

    Args:
        more: a file of runs of the user's own, as `meal facts` writes it.

    Raises:
        UserError: if that file cannot be read, or lacks a column or a number.
    """
    runs = _read(STUDIES)
    if more is None:
        return runs
    try:
        own = _read(more)
    except (OSError, ValueError) as error:
        raise UserError(f"--runs {more}: {' '.join(str(error).split())}") from None
    lacking = sorted(set(runs.columns) - set(own.columns))
    if lacking:
        raise UserError(f"--runs {more}: it lacks {', '.join(lacking)}; write it with: meal facts")
    for name in sorted(set(runs.columns) - set(_TEXT)):
        numbers = pd.to_numeric(own[name], errors="coerce")
        wrong = ~np.isfinite(numbers) | (numbers < (name in _POSITIVE))
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise UserError(
                f"--runs {more}: {name}='{own[name].iloc[row]}' in run {row + 1}; allowed: a "
                f"number from {int(name in _POSITIVE)}"
            )
        own[name] = numbers
    return pd.concat([runs, own[list(runs.columns)]], ignore_index=True)


def _read(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype=dict.fromkeys(_TEXT, str), keep_default_na=False)


def outcome(runs: pd.DataFrame) -> Vector:
    """The logarithm of the student's errors divided by the baseline's; half an image for none."""
    least = 50 / runs["test"]
    student, baseline = (
        np.maximum(runs[f"{name}_test"], least) for name in ("student", "baseline")
    )
    return np.asarray(np.log(student / baseline), dtype=np.float64)


def quality(runs: pd.DataFrame) -> Quality:
    """Forecast runs that are left out, one by one and dataset by dataset."""
    from sklearn.dummy import DummyRegressor
    from sklearn.model_selection import LeaveOneGroupOut, LeaveOneOut, cross_val_predict

    inputs, measured, datasets = features(runs), outcome(runs), runs["dataset"]
    found = {"runs": len(runs), "datasets": int(datasets.nunique())}

    def errors(model: Any, folds: Any) -> Vector:
        return np.abs(cross_val_predict(model, inputs, measured, cv=folds) - measured)

    one = errors(_model(), LeaveOneOut()).mean(), errors(DummyRegressor(), LeaveOneOut()).mean()
    if found["datasets"] == 1:
        return Quality(**found, run=one[0], constant_run=one[1], dataset=np.inf,
                       constant_dataset=np.inf, half_width=np.inf)  # fmt: skip
    folds = list(LeaveOneGroupOut().split(inputs, groups=datasets))
    left_out = errors(_model(), folds)
    return Quality(
        **found,
        run=float(one[0]),
        constant_run=float(one[1]),
        dataset=float(left_out.mean()),
        constant_dataset=float(errors(DummyRegressor(), folds).mean()),
        half_width=float(np.quantile(left_out, COVERAGE)),
    )


def forecast(facts: Facts, runs: pd.DataFrame, half_width: float) -> Forecast:
    """Forecast the student of a run from its facts."""
    known, own = features(runs), features(pd.DataFrame([asdict(facts)])).iloc[0]
    model = _model().fit(known, outcome(runs))
    expected = float(model.predict(own.to_frame().T)[0])
    ratio, low, high = np.exp([expected, expected - half_width, expected + half_width]).tolist()
    outside = (own < known.min()) | (own > known.max())
    return Forecast(ratio, low, high, tuple(known.columns[outside]))


def _model() -> Pipeline:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), Ridge(alpha=_PRIOR))
