"""A student in a training loop of one's own: teachers' outputs from a cache, without DVC.

python examples/own_loop.py artifacts/caches/vgg artifacts/data
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import meal.targets
import meal.views

TEMPERATURE, PASSES, BATCH = 4.0, 4, 64


def main(cache: str, data: str) -> None:
    """Distill the cached teacher into a small network, on the views that are there."""
    targets = meal.targets.open(cache)
    images, labels = (np.load(Path(data) / f"train_{name}.npy") for name in ("images", "labels"))
    classes = targets(targets.present[0], slice(0, 1)).logits.shape[1]
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, classes))
    student(torch.zeros(1, *images.shape[1:]))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    for number in range(PASSES):
        view = targets.present[number % len(targets.present)]
        order, total = np.random.default_rng(number).permutation(len(images)), 0.0
        for rows in np.array_split(order, max(1, len(order) // BATCH)):
            pixels = meal.views.apply(images, rows, view, targets.views, labels)
            teacher = (targets(view, rows).logits / TEMPERATURE).softmax(dim=1)
            logits = student(pixels.float() / 255) / TEMPERATURE
            loss = nn.functional.cross_entropy(logits, teacher)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        print(f"pass {number}, view {view}: loss {total / len(images):.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
