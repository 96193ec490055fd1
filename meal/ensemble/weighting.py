"""The weights of an ensemble's members, chosen on validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from meal.metrics import Floats, Labels, negative_log_likelihood, top1_error
from meal.targets.ensemble import uniform_weights


def best_weights(log_probabilities: Sequence[Floats], labels: Labels) -> list[float]:
    """All weight on the member with the lowest error and then NLL.

    Args:
        log_probabilities: of each member, `(N, C)`, on validation images.
        labels: `(N,)`.
    """
    scores = [
        (top1_error(member, labels), negative_log_likelihood(member, labels))
        for member in log_probabilities
    ]
    best = scores.index(min(scores))
    return [float(number == best) for number in range(len(scores))]


def fit_weights(log_probabilities: Sequence[Floats], labels: Labels) -> list[float]:
    """Non-negative weights that sum to one and minimise the NLL of the weighted mean.

    The NLL is convex in the weights. Members that add nothing get weight zero; copies of a member
    together get the weight that it would get alone.

    Args:
        log_probabilities: of each member, `(N, C)`, on validation images.
        labels: `(N,)`.
    """
    from scipy.optimize import minimize

    rows = np.arange(len(labels))
    of_label = np.stack([np.exp(member[rows, labels]) for member in log_probabilities], axis=1)
    of_label = np.maximum(of_label, 1e-12)

    def loss(weights: Floats) -> tuple[float, Floats]:
        mixture = np.maximum(of_label @ weights, 1e-300)
        return -float(np.log(mixture).mean()), -(of_label / mixture[:, None]).mean(axis=0)

    count = len(log_probabilities)
    found = minimize(
        loss,
        uniform_weights(count),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * count,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-10, "maxiter": 500},
    )
    if not found.success:
        raise RuntimeError(f"the weights of the ensemble cannot be fitted: {found.message}")
    weights = np.clip(found.x, 0, None)
    weights[weights < 1e-6] = 0  # the solver stops just short of zero
    return [round(float(weight), 6) for weight in weights / weights.sum()]
