"""Augmented and mixed views: by hand, and as pure functions of (seed, image, view)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from meal.core.seeds import hash_integers, mix
from meal.data.stores import ArrayStore
from meal.views.augment import Erasing, RandAugment, box_mask
from meal.views.crops import PaddedCrops, ResizedCrops
from meal.views.families import ViewFamily
from meal.views.mixing import Kinds, Mixing
from meal.views.pipelines import PlainPipeline, ViewPipeline

CPU = torch.device("cpu")
CROPS = PaddedCrops(3, 0, False, 1)  # the image itself
ALL = torch.arange(40)
LABELS = torch.where(torch.arange(40) % 4 == 0, -1, torch.arange(40) % 3)
USED: dict[str, dict[str, Any]] = {
    "randaugment": {"randaugment": RandAugment(3, 2, 12)},
    "erase": {"erasing": Erasing(3, 0.7)},
    "mixup": {"mixing": Mixing(3, mixup=0.4)},
    "cutmix": {"mixing": Mixing(3, cutmix=1.0)},
    "everything": {
        "randaugment": RandAugment(3, 1, 20), "erasing": Erasing(3, 0.3),
        "mixing": Mixing(3, 0.4, 1.0),
    },
}  # fmt: skip


def images(count: int = 40, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 8, 8, channels), generator=generator).to(torch.uint8)


def pipeline(channels: int = 3, crops: Any = CROPS, **parts: Any) -> ViewPipeline:
    one = [1 / 255] * channels
    plain = PlainPipeline(ArrayStore(images(channels=channels)), [0.0] * channels, one, CPU)
    return ViewPipeline(plain, ViewFamily(crops, **parts), LABELS)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crops", [CROPS, ResizedCrops(3, 0.3, 1.0, True)])
@pytest.mark.parametrize("name", USED)
def test_a_view_does_not_depend_on_batch_or_order(name: str, crops: Any, channels: int) -> None:
    views = pipeline(channels, crops, **USED[name])
    every = views.view(ALL, 5)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    batches = views.batches((5, rows) for rows in order.split(7))
    for batch in batches:
        assert torch.equal(batch.images, every[batch.rows])
    assert not torch.equal(every, views.view(ALL, 6))
    assert torch.equal(pipeline(channels, crops, **USED[name]).view(ALL, 5), every)
    assert torch.isfinite(every).all() and every.min() >= 0 and every.max() <= 255


@pytest.mark.parametrize("name", USED)
def test_what_is_used_identifies_the_views(name: str) -> None:
    family = ViewFamily(CROPS, **USED[name])
    assert family.identity.keys() > ViewFamily(CROPS).identity.keys()


def test_an_operation_is_torchvisions() -> None:
    augment = RandAugment(3, 1, 15)
    pixels = images()
    changed = augment(pixels, ALL, 2)
    key = hash_integers(3, ALL, 2, 1)
    drawn, negative = mix(key, 1) % 14, mix(key, 2) & 1
    assert len(drawn.unique()) > 8
    checked = 0
    for row in range(40):
        image = pixels[row].permute(2, 0, 1)
        sign = -1 if negative[row] else 1
        expected = {
            0: image,
            5: V.rotate(image, 15 * sign),
            6: V.adjust_brightness(image, 1 + 0.45 * sign),
            10: V.posterize(image, 6),
            13: V.equalize(image),
        }.get(int(drawn[row]))
        if expected is not None:
            checked += 1
            assert torch.equal(changed[row], expected.permute(1, 2, 0)), int(drawn[row])
    assert checked >= 8


def test_without_operations_pixels_stay_as_they_are() -> None:
    pixels = torch.rand(4, 8, 8, 3)
    assert RandAugment(3, 0, 9)(pixels, torch.arange(4), 0) is pixels
    assert Erasing(3, 0.0)(pixels, torch.arange(4), 0) is pixels


def test_erasing_paints_one_rectangle_of_one_colour() -> None:
    rows = torch.arange(2000)
    pixels = torch.full((2000, 20, 20, 3), -1.0)  # a value that no colour has
    painted = Erasing(3, 0.25)(pixels, rows, 1) >= 0
    assert (painted == painted[..., :1]).all()
    box = painted[..., 0]
    area = box.double().mean(dim=(1, 2))
    assert (area > 0).double().mean() == pytest.approx(0.25, abs=0.03)
    assert area[area > 0].min() > 0.01 and area.max() < 0.36
    for one in box[area > 0][:50]:
        height, width = one.any(dim=1).sum(), one.any(dim=0).sum()
        assert one.sum() == height * width  # full: a rectangle
    colours = Erasing(3, 1.0)(pixels, rows, 1).flatten(1, 2).amax(dim=1)
    assert colours.min() >= 0 and colours.max() <= 255 and len(colours.unique(dim=0)) > 1900


def test_boxes_by_hand() -> None:
    two = torch.tensor([2.0])
    mask = box_mask(torch.tensor([1.0]), torch.tensor([0.0]), two, two, 4)[0].int().tolist()
    assert mask == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]


def test_mixup_by_hand() -> None:
    views = pipeline(mixing=Mixing(3, mixup=0.4))
    (batch,) = views.batches([(1, ALL)])
    assert batch.mix is not None and not batch.mix.cut.any()
    own = images().float()
    share = batch.mix.share[:, None, None, None]
    expected = share * own + (1 - share) * own[batch.mix.partners]
    assert torch.allclose(batch.images.permute(0, 2, 3, 1), expected, atol=1e-3)
    assert torch.equal(batch.mix.share * 256, (batch.mix.share * 256).round())


def test_cutmix_by_hand() -> None:
    views = pipeline(mixing=Mixing(3, cutmix=1.0))
    (batch,) = views.batches([(1, ALL)])
    assert batch.mix is not None and batch.mix.cut.all()
    own, box = images().float(), batch.mix.box[..., None]
    expected = torch.where(box, own[batch.mix.partners], own)
    assert torch.allclose(batch.images.permute(0, 2, 3, 1), expected, atol=1e-3)
    kept = 1 - batch.mix.box.double().mean(dim=(1, 2))
    assert torch.allclose(batch.mix.share.double(), kept)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_shares_have_the_moments_of_the_beta_distribution(alpha: float) -> None:
    rows = torch.arange(20_000)
    mixed = Mixing(3, mixup=alpha).draw(rows, 0, Kinds(torch.zeros(20_000)), 8)
    assert float(mixed.share.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(mixed.share.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_with_both_half_of_the_images_are_cut() -> None:
    rows = torch.arange(20_000)
    mixed = Mixing(3, 0.4, 1.0).draw(rows, 0, Kinds(torch.zeros(20_000)), 8)
    assert float(mixed.cut.double().mean()) == pytest.approx(0.5, abs=0.02)


def test_an_image_is_mixed_with_one_of_its_kind_and_keeps_its_label() -> None:
    views = pipeline(mixing=Mixing(3, mixup=1.0))
    (batch,) = views.batches([(4, ALL)])
    assert batch.mix is not None
    assert torch.equal(LABELS[batch.mix.partners] >= 0, LABELS >= 0)
    assert len(batch.mix.partners.unique()) > 15
    mixed = batch.labels(LABELS, 3)
    assert torch.allclose(mixed.sum(dim=1), (LABELS >= 0).float())
    for row in (1, 2, 3):
        other, share = int(LABELS[batch.mix.partners[row]]), float(batch.mix.share[row])
        expected = torch.zeros(3)
        expected[LABELS[row]] += share
        expected[other] += 1 - share
        assert torch.allclose(mixed[row], expected, atol=1e-6)


def test_the_draws_of_mixtures_never_change() -> None:
    """Caches on disk depend on them: if you change the hash, raise VERSION."""
    mixed = Mixing(3, 0.4, 1.0).draw(torch.arange(6), 2, Kinds(torch.zeros(6)), 8)
    assert mixed.partners.tolist() == [2, 3, 1, 1, 1, 2]
    assert (256 * mixed.share).round().int().tolist() == [0, 210, 220, 0, 176, 176]
