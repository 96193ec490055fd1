"""How much each member of an ensemble counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from meal.metrics import Floats, Labels


def uniform_weights(members: int) -> list[float]:
    """The traditional ensemble: every member counts the same."""
    return [1.0 / members] * members


def fit_weights(log_probabilities: Sequence[Floats], labels: Labels) -> list[float]:
    """Weights, none negative and summing to one, of the mixture that is likeliest on labels.

    The negative log-likelihood of a mixture is convex in its weights: there is one minimum, and
    members that add nothing end at zero; copies share what one of them would have.

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
        raise ValueError(f"the ensemble's weights cannot be fitted: {found.message}")
    weights = np.clip(found.x, 0, None)
    weights[weights < 1e-6] = 0  # what the solver leaves where there is nothing
    return [round(float(weight), 6) for weight in weights / weights.sum()]
