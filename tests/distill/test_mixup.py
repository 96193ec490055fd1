from __future__ import annotations

import torch

from meal.distill.mixup import mix

IMAGES = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 4, 4).contiguous()
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def test_images_and_labels_are_mixed_with_one_weight() -> None:
    mixed, probabilities = mix(IMAGES, LABELS, 3, alpha=1.0, seed=4)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(6))
    # If the partner has another class, the probability of an image's own label is the weight.
    own = probabilities[torch.arange(6), LABELS]
    weights = own[own < 1 - 1e-6].unique()
    assert len(weights) == 1
    weight = float(weights)
    partner = ((mixed[:, 0, 0, 0] - weight * torch.arange(6)) / (1 - weight)).round().long()
    assert sorted(partner.tolist()) == list(range(6))
    expected = weight * IMAGES + (1 - weight) * IMAGES[partner]
    assert torch.allclose(mixed, expected, atol=1e-5)


def test_the_seed_decides_the_mixture() -> None:
    first, again, other = (mix(IMAGES, LABELS, 3, 0.4, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
