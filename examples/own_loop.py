"""A student in a training loop of one's own: teachers' outputs from a cache, without DVC.

python examples/own_loop.py artifacts/caches/vgg artifacts/data/train_images.npy
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import nn

import meal.targets
import meal.views

TEMPERATURE, PASSES, BATCH = 4.0, 4, 64


def main(folder: str, file: str) -> None:
    """Distill the cached teacher into a small network, on the views that are there."""
    targets, images = meal.targets.open(folder), np.load(file, mmap_mode="r")
    side, channels = images.shape[1], images.shape[3]
    classes = targets(targets.present[0], slice(0, 1)).logits.shape[1]
    student = nn.Sequential(nn.Flatten(), nn.Linear(side * side * channels, 64), nn.ReLU())
    student.append(nn.Linear(64, classes))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    for number in range(PASSES):
        view, order = (
            targets.present[number % len(targets.present)],
            np.random.permutation(len(images)),
        )
        total = 0.0
        for rows in np.array_split(order, max(1, len(order) // BATCH)):
            pixels = meal.views.apply(images[:], rows, view, targets.views)
            teacher = targets(view, rows).logits / TEMPERATURE
            logits = student(pixels.float() / 255) / TEMPERATURE
            loss = nn.functional.cross_entropy(logits, teacher.softmax(dim=1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss) * len(rows)
        print(f"pass {number}, view {view}: loss {total / len(images):.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
