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


def test_labelled_images_are_mixed_among_themselves_so_that_no_label_is_lost() -> None:
    labels = torch.tensor([-1, 1, -1, -1, 2, -1])
    partners = set()
    for seed in range(20):
        mixed, probabilities = mix(IMAGES, labels, 3, alpha=1.0, seed=seed)
        assert torch.allclose(probabilities.sum(dim=1), (labels >= 0).float())
        other = mixed[labels < 0, 0, 0, 0]  # between values of unlabelled images: 0, 2, 3 and 5
        partners |= {tuple(mixed[labels >= 0, 0, 0, 0].gt(1.0).tolist())}
        assert ((other >= 0) & (other <= 5)).all()
        assert float(mixed[1, 0, 0, 0]) <= 4 and float(mixed[4, 0, 0, 0]) >= 1
    assert len(partners) > 1  # an image's partner is sometimes itself, sometimes the other


def test_the_seed_decides_the_mixture() -> None:
    first, again, other = (mix(IMAGES, LABELS, 3, 0.4, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
