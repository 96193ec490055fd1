"""The facts and test errors of finished experiments, on which `meal advise` fits its forecast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from meal.advice.facts import facts_of
from meal.core.errors import UserError
from meal.core.paths import DATA_CARD, SCORES, VALIDATION_BASELINE, VALIDATION_SCORES
from meal.experiments.repository import open_repository
from meal.experiments.runs import fresh_runs, read_content

_FILES = (DATA_CARD, VALIDATION_BASELINE, VALIDATION_SCORES, SCORES)
_MODELS = ("student", "baseline", "ensemble")


def study_runs(revisions: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """A row for each finished experiment: setting, facts, and test errors in percent.

    Args:
        revisions: the commits from which the experiments start; HEAD if empty.

    Returns:
        The rows, without repetitions, and the number of experiments that lack something: an
        older version has written their reports.

    Raises:
        UserError: if none has the files that this needs.
    """
    rows, lacking = [], 0
    with open_repository() as repo:
        for revision, params in fresh_runs(repo, revisions, str(SCORES)):
            try:
                files = [read_content(repo, revision, str(file)) for file in _FILES]
                rows.append(_row(params, files))
            except KeyError:
                lacking += 1
    if not rows:
        names = ", ".join(str(file) for file in _FILES)
        raise UserError(
            f"no experiment has all of {names} from this version; run some with: "
            "python -m meal sweep -S seed=1,2,3 --target evaluate"
        )
    return pd.DataFrame(rows).drop_duplicates(ignore_index=True), lacking


def _row(params: Mapping[str, Any], files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The row of an experiment, from its parameters and the content of `_FILES`."""
    card, baseline, validation, scores = files
    ensemble_error = validation["ensemble"]["top1_error"]
    pool = params["distill"]["pool"]
    facts = facts_of(card, baseline, ensemble_error, scores["worth"], scores["cost"], pool)
    return {
        "dataset": card["dataset"],
        "labelled": str(params["data"]["labelled"]),
        "student": params["student"],
        "pool": pool,
        "seed": params["seed"],
        **asdict(facts),
        "test": card["images"]["test"],
        **{f"{model}_test": scores[model]["top1_error"] for model in _MODELS},
    }
