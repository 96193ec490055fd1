from __future__ import annotations

import torch

from meal.distill.mixup import mix

IMAGES = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 4, 4).contiguous()
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def test_images_and_labels_are_blended_in_one_proportion() -> None:
    blends, shares = mix(IMAGES, LABELS, 3, alpha=1.0, seed=4)
    assert torch.allclose(shares.sum(dim=1), torch.ones(6))
    # Where the partner has another class, the share of an image's own label is the proportion.
    own = shares[torch.arange(6), LABELS]
    proportion = own[own < 1 - 1e-6].unique()
    assert len(proportion) == 1
    share = float(proportion)
    partner = ((blends[:, 0, 0, 0] - share * torch.arange(6)) / (1 - share)).round().long()
    assert sorted(partner.tolist()) == list(range(6))
    expected = share * IMAGES + (1 - share) * IMAGES[partner]
    assert torch.allclose(blends, expected, atol=1e-5)


def test_a_blend_follows_from_its_seed() -> None:
    first, again, other = (mix(IMAGES, LABELS, 3, 0.4, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
