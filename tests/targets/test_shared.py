"""A cache in somebody else's hands: the same views, a part of it, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import meal.targets
import meal.views
from meal.core.errors import UserError
from meal.data.prepared import Prepared
from meal.models.checkpoint import load
from meal.targets import shared
from meal.targets.cache import TargetCache
from meal.views.augment import Erasing, RandAugment
from meal.views.crops import PaddedCrops, ResizedCrops
from meal.views.families import ViewFamily, family_of
from meal.views.mixing import Mixing
from meal.views.pipelines import PlainPipeline
from tests.caches import CPU, VIEWS, build_ensemble, make_cache
from tests.conftest import ROOT

ROWS = np.array([5, 90, 0, 33, 34])


@pytest.fixture
def cache(data: Prepared, tmp_path: Path) -> TargetCache:
    return make_cache(data, tmp_path, dtype="float32")


def test_the_teacher_gives_its_cached_outputs_for_the_pixels_of_a_view(
    cache: TargetCache, data: Prepared, tmp_path: Path
) -> None:
    targets = meal.targets.open(cache.folder, data=data.fingerprint)
    images = data.images("train").whole
    assert images is not None
    network = load(tmp_path / "teachers" / "one").network
    plain = PlainPipeline.of(data, "train", CPU)
    for view in targets.present:
        pixels = meal.views.apply(images.numpy(), ROWS, view, targets.views)
        assert pixels.dtype == torch.uint8 and pixels.shape == (5, 16, 16, 1)
        with torch.inference_mode():
            logits = network(plain.normalise(pixels))
        assert torch.allclose(targets(view, ROWS).logits, logits, atol=1e-6)
        assert torch.equal(targets(view, ROWS).block(2), cache.outputs(view, ROWS).block(2))


@pytest.mark.parametrize(
    "family",
    [
        ViewFamily(PaddedCrops(3, 2, True, 50)),
        ViewFamily(PaddedCrops(3, 1, False, 9), RandAugment(3, 2, 5), Erasing(3, 0.5)),
        ViewFamily(ResizedCrops(3, 0.2, 1.0, True), mixing=Mixing(3, 0.2, 1.0)),
    ],
)
def test_a_family_is_rebuilt_from_what_identifies_it(family: ViewFamily) -> None:
    assert family_of(family.identity).identity == family.identity
    with pytest.raises(UserError, match="version 0 of the views: this code makes version"):
        family_of({**family.identity, "version": 0})


def test_mixed_pixels_need_the_labels_that_decide_who_is_mixed(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VIEWS, "mixup", 0.5)
    cache = make_cache(data, tmp_path, dtype="float32")
    images, labels = data.images("train").whole, data.labels("train").clone()
    assert images is not None
    targets = meal.targets.open(cache.folder)
    with pytest.raises(UserError, match=r"these views are mixed.*: give labels"):
        meal.views.apply(images, ROWS, 1, targets.views)
    network = load(tmp_path / "teachers" / "one").network
    pixels = meal.views.apply(images, ROWS, 1, targets.views, labels)
    with torch.inference_mode():
        logits = network(PlainPipeline.of(data, "train", CPU).normalise(pixels))
    assert torch.allclose(targets(1, ROWS).logits, logits, atol=1e-5)
    labels[::2] = -1  # other partners
    assert not torch.equal(meal.views.apply(images, ROWS, 1, targets.views, labels), pixels)


def test_views_of_larger_images_have_the_size_that_the_teacher_saw(cache: TargetCache) -> None:
    larger = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 1)).astype(np.uint8)
    resized = ViewFamily(ResizedCrops(3, 0.2, 1.0, True)).identity
    assert meal.views.apply(larger, [0, 3], 1, {**resized, "image_size": 16}).shape[1:3] == (16, 16)


def test_a_cache_without_views_cannot_be_opened(data: Prepared, tmp_path: Path) -> None:
    cache = make_cache(data, tmp_path, enabled=False)
    with pytest.raises(UserError, match=r"no view is there; .*cache.enabled: true"):
        meal.targets.open(cache.folder)


def test_the_mean_of_an_ensemble_can_be_opened(data: Prepared, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        make_cache(data, tmp_path, name, seed)
    targets = meal.targets.open(build_ensemble(tmp_path, "one", "two").folder / "mean")
    assert targets(0, ROWS).logits.exp().sum(dim=1) == pytest.approx(np.ones(5), abs=2e-3)


def test_some_of_the_views_are_enough(cache: TargetCache) -> None:
    (cache.folder / "views" / "00001.npy").unlink()
    targets = meal.targets.open(cache.folder)
    assert targets.present == [0, 2]
    assert len(targets(2, slice(0, 10)).logits) == 10
    with pytest.raises(UserError, match=r"00001\.npy is not there; .*dvc pull .* the 2 views"):
        targets(1, ROWS)


def test_what_does_not_fit_is_refused_by_name(
    cache: TargetCache, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = cache.manifest["weights"]
    assert meal.targets.open(cache.folder, data=data.fingerprint, weights=weights).present
    for key, wrong in (("data", {"data": "abc"}), ("weights", {"weights": "abc"})):
        with pytest.raises(UserError, match=rf"{key} differs: the cache is for \w+, not abc"):
            meal.targets.open(cache.folder, **wrong)
    monkeypatch.setattr(shared, "views_digest", lambda: "abc")
    with pytest.raises(UserError, match="code differs"):
        meal.targets.open(cache.folder)


def test_a_damaged_view_is_refused_by_name(cache: TargetCache) -> None:
    file = cache.folder / "views" / "00002.npy"
    content = bytearray(file.read_bytes())
    content[-50] ^= 1
    file.write_bytes(content)
    targets = meal.targets.open(cache.folder)
    assert len(targets(0, ROWS).logits) == 5
    with pytest.raises(UserError, match=r"views/00002\.npy"):
        targets(2, ROWS)


def test_the_example_learns_from_a_cache_without_dvc_or_our_engine(
    cache: TargetCache, data: Prepared, tmp_path: Path
) -> None:
    images = data.images("train").whole
    assert images is not None
    np.save(tmp_path / "train_images.npy", images.numpy())
    np.save(tmp_path / "train_labels.npy", data.labels("train").numpy())
    check = (
        "import sys; sys.argv[1:] = sys.argv[2:]; import runpy; runpy.run_path(sys.argv[0], "
        "run_name='__main__'); assert not {'dvc', 'meal.training', 'meal.distill'} & {*sys.modules}"
    )
    code = check.replace("sys.argv[0]", repr(str(ROOT / "examples" / "own_loop.py")))
    result = subprocess.run(
        [sys.executable, "-c", code, "example", str(cache.folder), str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    losses = [float(line.rpartition(" ")[2]) for line in result.stdout.splitlines()]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert "pass 3, view 0: loss" in result.stdout
