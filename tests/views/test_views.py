from __future__ import annotations

from itertools import islice

import pytest
import torch

from meal.core.errors import UserError
from meal.data.stores import ArrayStore
from meal.views.batches import Visits
from meal.views.crops import Crops, PaddedCrops, ResizedCrops
from meal.views.families import ViewFamily
from meal.views.pipelines import PlainPipeline, ViewPipeline
from meal.views.settings import Views

CPU = torch.device("cpu")
PAPER = PaddedCrops(seed=3, crop_padding=4, flip=True, size=162)


def members(family: PaddedCrops, images: torch.Tensor, view: int) -> torch.Tensor:
    top, left, flip = family.parameters(images, view, (8, 8))
    side = 2 * family.crop_padding + 1
    return top * side + left + flip * side**2


@pytest.mark.parametrize(
    ("padding", "flip", "size"), [(4, True, 162), (4, False, 81), (0, False, 1)]
)
def test_the_number_of_views_is_resolved(padding: int, flip: bool, size: int) -> None:
    views = Views(count=1, crop_padding=padding, flip=flip)
    assert views.resolve(flip=False)[0].size == size
    assert Views(count=1, crop="resized").resolve(flip=False)[0].size is None


@pytest.mark.parametrize(
    "family", [PAPER, PaddedCrops(9, 2, False, 25), PaddedCrops(1, 1, True, 18)]
)
def test_every_view_of_an_image_comes_once_before_any_is_repeated(family: PaddedCrops) -> None:
    images = torch.arange(50)
    for turn in range(2):
        seen = [members(family, images, turn * family.size + k) for k in range(family.size)]
        order = torch.stack(seen).sort(dim=0).values
        assert torch.equal(order, torch.arange(family.size)[:, None].expand(-1, 50))


def test_a_new_turn_has_a_new_order() -> None:
    images = torch.arange(200)
    first, second = members(PAPER, images, 5), members(PAPER, images, 5 + PAPER.size)
    assert (first == second).float().mean() < 0.05


def test_views_are_distributed_evenly_over_images() -> None:
    counts = torch.bincount(members(PAPER, torch.arange(162 * 100), 0), minlength=162)
    # Chi-squared with 161 degrees of freedom: mean 161, std 18.
    assert ((counts - 100) ** 2 / 100).sum() < 161 + 5 * 18


def test_consecutive_views_of_an_image_are_unrelated() -> None:
    images = torch.arange(20_000)
    first, second = members(PAPER, images, 0).double(), members(PAPER, images, 1).double()
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.03


def test_seeds_give_different_views() -> None:
    images = torch.arange(500)
    other = PaddedCrops(4, 4, True, 162)
    high = PaddedCrops(3 + 2**40, 4, True, 162)
    for family in (other, high):
        assert (members(PAPER, images, 0) == members(family, images, 0)).float().mean() < 0.05


def test_the_parameters_of_views_never_change() -> None:
    # Caches on disk depend on them: if you change the hash, raise VERSION.
    assert members(PAPER, torch.arange(8), 0).tolist() == [77, 135, 55, 146, 50, 10, 160, 139]
    assert members(PAPER, torch.tensor([7, 3]), 1000).tolist() == [73, 58]


def whole(views: ViewPipeline) -> torch.Tensor:
    images = views._plain.store.whole
    assert images is not None
    return images


def pipeline(crops: Crops, count: int = 12, channels: int = 3) -> ViewPipeline:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 8, 8, channels), generator=generator)
    plain = PlainPipeline(
        ArrayStore(images.to(torch.uint8)), [0.0] * channels, [1 / 255] * channels, CPU
    )
    return ViewPipeline(
        plain, ViewFamily(crops)
    )  # this normalisation leaves pixel values unchanged


def test_a_view_is_the_crop_and_flip_given_by_its_parameters() -> None:
    views = pipeline(PAPER)
    images = torch.tensor([4, 0, 11])
    top, left, flip = PAPER.parameters(images, 7, (8, 8))
    padded = torch.nn.functional.pad(whole(views), (0, 0, 4, 4, 4, 4))
    for row, image in enumerate(images):
        crop = padded[image, top[row] : top[row] + 8, left[row] : left[row] + 8]
        expected = crop.flip(1) if flip[row] else crop
        got = views.view(images, 7)[row].permute(1, 2, 0)
        assert torch.equal(got.round().to(torch.uint8), expected)


def test_a_view_does_not_depend_on_batch_or_order() -> None:
    views = pipeline(PAPER)
    every = views.view(torch.arange(12), 3)
    views.view(torch.arange(12), 9)  # another view in between has no effect
    for image in (11, 5, 0):
        assert torch.equal(views.view(torch.tensor([image]), 3)[0], every[image])
    assert torch.equal(pipeline(PAPER).view(torch.tensor([5, 2]), 3), every[[5, 2]])


def test_batches_are_normalised_and_channels_last() -> None:
    images = torch.full((2, 8, 8, 3), 255, dtype=torch.uint8)
    plain = PlainPipeline(ArrayStore(images), [0.5, 0.25, 0.0], [0.5, 0.25, 2.0], CPU)
    batch = plain.plain(0, 2)
    assert batch.shape == (2, 3, 8, 8)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(batch[0, :, 0, 0], torch.tensor([1.0, 3.0, 0.5]), atol=1e-6)


def test_each_epoch_has_a_new_order_and_drops_different_images() -> None:
    rows = 3 * torch.arange(10)
    visits = Visits(rows, 4, seed=0)
    assert visits.steps == 2
    numbers, batches = zip(*islice(visits.batches(0), 6), strict=True)
    assert numbers == (0, 0, 1, 1, 2, 2)
    assert [len(batch) for batch in batches] == 6 * [4]
    passes = [torch.cat(batches[k : k + 2]) for k in (0, 2, 4)]
    assert all(len(set(each.tolist())) == 8 for each in passes)
    assert set(torch.cat(passes).tolist()) <= set(rows.tolist())
    assert not torch.equal(passes[0], passes[1])
    for first in range(6):  # a run that resumes sees the same batches
        again = list(islice(visits.batches(first), 6 - first))
        assert [number for number, _ in again] == list(numbers[first:])
        assert all(torch.equal(a, b) for (_, a), b in zip(again, batches[first:], strict=True))


def test_a_dataset_smaller_than_a_batch_is_one_batch() -> None:
    visits = Visits(torch.arange(3), 8, seed=0)
    assert [(number, len(rows)) for number, rows in islice(visits.batches(1), 2)] == [
        (1, 3),
        (2, 3),
    ]


RESIZED = ResizedCrops(seed=1, low=0.25, high=1.0, flip=True)


def test_resized_crops_lie_in_the_image_and_have_the_requested_area_and_ratio() -> None:
    size = (60, 80)
    top, left, height, width, flip = RESIZED.parameters(torch.arange(5000), 3, size)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 60).all()
    assert (left + width <= 80).all()
    area, ratio = height * width / (60 * 80), width / height
    assert area.min() > 0.23
    assert area.max() <= 1
    assert ratio.min() > 0.7
    assert ratio.max() < 1.4
    assert 0.45 < flip.float().mean() < 0.55
    # Positions are spread over the space that the crop's size leaves.
    movable = height < 55
    assert abs((top[movable] / (60 - height[movable])).mean() - 0.5) < 0.03


def test_resized_crops_are_a_function_of_seed_image_and_view() -> None:
    def draw(family: ResizedCrops, images: list[int], view: int) -> torch.Tensor:
        return torch.stack(family.parameters(torch.tensor(images), view, (60, 80)))

    assert torch.equal(draw(RESIZED, [4, 9], 2)[:, 1], draw(RESIZED, [9], 2)[:, 0])
    assert not torch.equal(draw(RESIZED, [4], 2), draw(RESIZED, [4], 3))
    assert not torch.equal(draw(RESIZED, [4], 2), draw(ResizedCrops(2, 0.25, 1.0, True), [4], 2))


def test_the_centre_is_taken_if_no_draw_fits_a_narrow_image() -> None:
    family = ResizedCrops(seed=1, low=1.0, high=1.0, flip=False)
    top, left, height, width, _ = family.parameters(torch.arange(20), 0, (20, 200))
    assert set(height.tolist()) == {20}
    assert set(width.tolist()) == {27}  # the widest ratio, 4/3
    assert set(left.tolist()) == {87}
    assert set(top.tolist()) == {0}


def test_a_resized_view_of_the_whole_image_is_the_image_or_its_mirror_image() -> None:
    uncropped = ResizedCrops(seed=0, low=1.0, high=1.0, flip=True)
    images = torch.arange(12)
    *_, height, width, flip = uncropped.parameters(images, 0, (8, 8))
    views = pipeline(uncropped)
    pixels = views.view(images, 0).permute(0, 2, 3, 1)
    plain = whole(views).float()
    full = (height == 8) & (width == 8)
    assert full.any()
    assert flip[full].any()
    for image in images[full].tolist():
        expected = plain[image].flip(1) if flip[image] else plain[image]
        assert torch.allclose(pixels[image], expected, atol=1e-3)


def test_a_resized_view_is_a_bilinear_resize_of_the_crop() -> None:
    views, images = pipeline(RESIZED), torch.arange(12)
    top, left, height, width, flip = RESIZED.parameters(images, 5, (8, 8))
    pixels = views.view(images, 5)
    for image in images.tolist():
        rows = slice(int(top[image]), int(top[image] + height[image]))
        columns = slice(int(left[image]), int(left[image] + width[image]))
        crop = whole(views)[image : image + 1, rows, columns].permute(0, 3, 1, 2).float()
        resized = torch.nn.functional.interpolate(crop, (8, 8), mode="bilinear")[0]
        expected = resized.flip(2) if flip[image] else resized
        # Compare only columns that no pixel outside the crop affects.
        assert torch.allclose(pixels[image, :, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], atol=1e-2)


@pytest.mark.parametrize(
    ("views", "count"),
    [
        ({"count": "all", "crop_padding": 4, "flip": True}, 162),
        ({"count": "all", "crop_padding": 4, "flip": "auto"}, 81),
        ({"count": 7}, 7),
        ({"count": 500, "crop": "resized"}, 500),
    ],
)
def test_all_counts_every_view(views: dict[str, object], count: int) -> None:
    assert Views.model_validate(views).resolve(flip=False)[1] == count


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({"count": 2, "crop_padding": 0, "flip": False}, "views.count=2: .* give 1 different"),
        ({"count": "all", "mixup": 0.2}, "there is no limit; give a number"),
        ({"count": "all", "crop": "resized"}, "there is no limit; give a number"),
    ],
)
def test_too_many_views_are_an_error(views: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Views.model_validate(views).resolve(flip=False)


@pytest.mark.parametrize("family", [PAPER, RESIZED])
def test_parameters_are_drawn_on_the_device_of_the_images(family: Crops) -> None:
    # The meta device stands in for a GPU: a stray CPU tensor is an error there.
    images = torch.arange(4, device="meta")
    for value in family.parameters(images, 3, (8, 8)):
        assert value.device.type == "meta"
    source = family.source(torch.empty(4, 8, 8, 3, dtype=torch.uint8, device="meta"))
    pixels = family.take(source, images, family.parameters(images, 3, (8, 8)), 8)
    assert pixels.shape == (4, 8, 8, 3)
