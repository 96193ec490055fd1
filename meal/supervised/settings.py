"""What the stages `teacher@NAME` and `baseline` read."""

from __future__ import annotations

from meal.core.settings import Section
from meal.models.settings import NetworkSlice
from meal.training.settings import Training
from meal.views.settings import ViewsSlice


class SupervisedSlice(Section):
    """A network, its views and its training; None for a teacher whose weights are loaded."""

    name: str
    network: NetworkSlice
    views: ViewsSlice
    training: Training | None
