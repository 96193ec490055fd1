"""How a stage opens the prepared data: where image files lie changes no result."""

from __future__ import annotations

from meal.config.loading import load_params
from meal.data.prepared import Prepared, open_prepared
from meal.data.stores import worker_count
from stages.common import DATA, PARAMS


def open_data() -> Prepared:
    """The prepared data, read from where params.yaml says, by as many processes as it says."""
    params = load_params(PARAMS)
    return open_prepared(DATA, params.data.root, worker_count(params.runtime.workers))
