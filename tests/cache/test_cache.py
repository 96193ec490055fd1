from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from meal.cache import build
from meal.core.errors import UserError
from meal.data.prepared import Prepared, Split
from meal.distill.teachers import (
    OnlineTeacher,
    TargetBatch,
    TargetReader,
    Targets,
    mean_over_views,
)
from meal.metrics import log_softmax
from meal.models.checkpoint import load
from meal.models.factory import build as build_network
from meal.models.factory import with_blocks
from meal.models.spec import NetworkSpec
from meal.targets.cache import TargetCache, create
from meal.targets.ensemble import Ensemble, mean_log_probabilities
from meal.targets.topk import compress, expand
from meal.views.crops import PaddedCrops
from meal.views.families import ViewFamily, views_digest
from meal.views.pipelines import PlainPipeline, ViewPipeline
from tests.caches import CPU, SPEC, build_ensemble, cache_slice, make_cache, stored, teacher
from tests.conftest import distill_settings

BLOCKS = ("block1", "block2", "block3")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 40, so that the 96 training images need a last batch that overlaps."""
    monkeypatch.setattr(build, "batch_size", lambda network, image: 40)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this process may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_an_error_before_any_page_is_written(small_disk: Path) -> None:
    with pytest.raises(UserError, match=r"logits\.npy cannot be written; is the disk full"):
        create(small_disk / "logits.npy", np.dtype(np.float32), (1, 1000, 100))
    assert list(small_disk.iterdir()) == []


def test_a_cache_holds_the_teachers_outputs_for_the_views(data: Prepared, tmp_path: Path) -> None:
    cache = make_cache(data, tmp_path, dtype="float32")
    loaded = load(tmp_path / "teachers" / "one")
    blocks = with_blocks(loaded.network, loaded.spec, 3)
    pipeline = ViewPipeline(
        PlainPipeline.of(data, "train", CPU), ViewFamily(PaddedCrops(0, 1, False, 9))
    )
    assert stored(cache, "logits").shape == (3, 96, 3)
    assert cache.blocks == [1, 2, 3]
    for view in range(3):
        with torch.inference_mode():
            logits, features = blocks(pipeline.view(torch.arange(96), view))
        assert np.array_equal(stored(cache, "logits")[view], logits.numpy())
        for block, values in features.items():
            assert np.array_equal(stored(cache, f"block{block}")[view], values.numpy())


def test_logits_for_plain_images_are_kept_in_float32(data: Prepared, tmp_path: Path) -> None:
    cache = make_cache(data, tmp_path)
    network = load(tmp_path / "teachers" / "one").network
    splits: tuple[tuple[Split, int], ...] = (("validation", 24), ("test", 30))
    for split, count in splits:
        found = cache.plain_logits(split)
        assert found.dtype == np.float32
        with torch.inference_mode():
            logits = network(PlainPipeline.of(data, split, CPU).plain(0, count))
        assert np.array_equal(found, logits.numpy())


def test_moments_count_every_view_of_every_image_once(data: Prepared, tmp_path: Path) -> None:
    cache = make_cache(data, tmp_path, dtype="float32")
    for block in cache.blocks:
        values = stored(cache, f"block{block}").reshape(-1, 16).astype(np.float64)
        mean, std = (part.numpy() for part in cache.moments(block))
        assert np.allclose(mean, values.mean(axis=0), rtol=1e-6)
        assert np.allclose(std, values.std(axis=0), rtol=1e-4)


def test_an_output_beyond_float16_names_the_teacher(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build.view_outputs

    def huge(*arguments: Any) -> Iterator[tuple[int, int, dict[str, Any]]]:
        for start, stop, outputs in whole(*arguments):
            yield start, stop, {**outputs, "logits": 1e6 * outputs["logits"]}

    monkeypatch.setattr(build, "view_outputs", huge)
    said = r"cache of one: logits has values up to .*e\+0.*cache.dtype=float16.*float32"
    with pytest.raises(UserError, match=said):
        make_cache(data, tmp_path / "half", "one")
    make_cache(data, tmp_path / "full", "one", dtype="float32")


def test_without_a_cache_and_blocks_nothing_is_answered(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any) -> Iterator[tuple[int, int, dict[str, Any]]]:
        raise AssertionError("a teacher answered in vain")

    monkeypatch.setattr(build, "view_outputs", never)
    cache = make_cache(data, tmp_path, "one", enabled=False, blocks=0)
    assert cache.blocks == [] and (cache.folder / "network").is_dir()


def test_float16_is_rounded_float32(data: Prepared, tmp_path: Path) -> None:
    half = make_cache(data, tmp_path / "a")
    full = make_cache(data, tmp_path / "b", dtype="float32")
    for name in ("logits", "block1"):
        assert np.array_equal(stored(half, name), stored(full, name).astype(np.float16))


def test_a_teachers_buffers_do_not_change(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(teacher(tmp_path / "teachers", "one", 1))
    network = loaded.network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    monkeypatch.setattr(build.checkpoint, "load", lambda folder: loaded)
    make_cache(data, tmp_path)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def files_of(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_an_interrupted_and_resumed_build_gives_the_same_bytes(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_cache(data, tmp_path / "whole")
    view_outputs = build.view_outputs

    def compute_and_die(*args: Any) -> Any:
        for index, outputs in enumerate(view_outputs(*args)):
            if args[2].view == 1 and index == 1:  # in the middle of the second view
                raise KeyboardInterrupt
            yield outputs

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "view_outputs", compute_and_die)
        make_cache(data, tmp_path / "parts")
    assert not (tmp_path / "parts" / "caches" / "one").exists()
    resumed = make_cache(data, tmp_path / "parts")
    assert files_of(resumed.folder) == files_of(whole.folder)


def test_too_little_disk_space_is_an_error_before_any_work(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(build.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(build, "view_outputs", None)  # must not be called
    with pytest.raises(UserError, match=r"cache of one needs .* MiB.*lower views.count"):
        make_cache(data, tmp_path)


@pytest.mark.parametrize("name", ["views/00001.npy", "test_logits.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_cache_is_never_read(
    name: str, damage: str, data: Prepared, tmp_path: Path
) -> None:
    folder = make_cache(data, tmp_path).folder
    path = folder / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-100] ^= 1
    path.write_bytes(content[:-8] if damage == "truncate" else content)
    if damage == "remove":
        path.unlink()
    with pytest.raises(UserError, match=r"fix: dvc repro cache@one"):
        TargetCache(folder, "cache@one").check(name)


@pytest.fixture
def ensemble(data: Prepared, tmp_path: Path) -> Ensemble:
    for name, seed in (("one", 1), ("two", 2), ("three", 3)):
        make_cache(data, tmp_path, name, seed, dtype="float32")
    return build_ensemble(tmp_path, "one", "two", "three")


def test_the_mean_is_of_probabilities_and_of_standardised_blocks(ensemble: Ensemble) -> None:
    members = list(ensemble.members.values())
    for view in range(3):
        each = [np.exp(log_softmax(stored(cache, "logits")[view])) for cache in members]
        probabilities = np.mean(each, axis=0)
        assert np.allclose(np.exp(stored(ensemble.mean, "logits")[view]), probabilities, atol=1e-6)
        blocks = []
        for cache in members:
            mean, std = (part.numpy() for part in cache.moments(2))
            blocks.append((stored(cache, "block2")[view] - mean) / std)
        assert np.allclose(
            stored(ensemble.mean, "block2")[view], np.mean(blocks, axis=0), atol=1e-5
        )


def test_the_mean_by_hand() -> None:
    one, two = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log() + 7
    expected = torch.tensor([[0.7, 0.3]])  # adding a constant to the logits changes nothing
    assert torch.allclose(mean_log_probabilities([one, two], [0.5, 0.5]).exp(), expected)


def test_members_are_linked_not_copied(ensemble: Ensemble, tmp_path: Path) -> None:
    name = Path("one", "views", "00002.npy")
    assert (tmp_path / "ensemble" / name).samefile(tmp_path / "caches" / name)


def test_an_ensemble_holds_only_the_chosen_teachers(ensemble: Ensemble, tmp_path: Path) -> None:
    assert build_ensemble(tmp_path, "three", "one").teachers == ["three", "one"]
    assert not (tmp_path / "ensemble" / "two").exists()


def test_caches_that_differ_cannot_be_combined(data: Prepared, tmp_path: Path) -> None:
    make_cache(data, tmp_path, "one", 1)
    make_cache(data, tmp_path, "two", 2, dtype="float32")
    with pytest.raises(UserError, match="differ in dtype"):
        build_ensemble(tmp_path, "one", "two")
    assert not (tmp_path / "ensemble").exists()


def test_outputs_for_other_data_or_views_are_refused(ensemble: Ensemble, data: Prepared) -> None:
    family = ViewFamily(PaddedCrops(0, 1, False, 9))
    ensemble.check(data.fingerprint, family.identity, 3)
    with pytest.raises(UserError, match="stale: views changed"):
        ensemble.check(data.fingerprint, ViewFamily(PaddedCrops(1, 1, False, 9)).identity, 3)
    with pytest.raises(UserError, match="stale: data changed"):
        ensemble.check("other", family.identity, 3)
    with pytest.raises(UserError, match="stale: view_count changed"):
        ensemble.check(data.fingerprint, family.identity, 4)


ROWS = torch.tensor([5, 90, 0, 33])


def ask(reader: TargetReader, rows: torch.Tensor, view: int, step: int) -> Targets:
    return reader.targets(TargetBatch(rows, view, step, torch.empty(0)))


def who_taught(ensemble: Ensemble, logits: torch.Tensor, view: int) -> list[str]:
    return [
        next(
            name
            for name, cache in ensemble.members.items()
            if np.array_equal(stored(cache, "logits")[view, image], row)
        )
        for image, row in zip(ROWS.tolist(), logits.numpy(), strict=True)
    ]


def test_random_selects_one_teacher_per_step_and_every_teacher_often(ensemble: Ensemble) -> None:
    reader = TargetReader(ensemble, distill_settings(selection="random"), seed=4, device=CPU)
    taught = []
    for step in range(60):
        names = who_taught(ensemble, ask(reader, ROWS, 1, step).logits, 1)
        assert len(set(names)) == 1
        taught.append(names[0])
    assert all(taught.count(name) >= 10 for name in ensemble.teachers)
    again = TargetReader(ensemble, distill_settings(selection="random"), seed=4, device=CPU)
    assert who_taught(ensemble, ask(again, ROWS, 1, 7).logits, 1)[0] == taught[7]


def test_random_per_image_mixes_teachers_and_keeps_rows_together(ensemble: Ensemble) -> None:
    settings = distill_settings(selection="random_per_image")
    reader = TargetReader(ensemble, settings, seed=4, device=CPU)
    mixed = 0
    for step in range(10):
        targets = ask(reader, ROWS, 2, step)
        names = who_taught(ensemble, targets.logits, 2)
        mixed += len(set(names)) > 1
        values, rows = targets.blocks[3]
        assert rows is not None
        for row, value in zip(rows.tolist(), values.numpy(), strict=True):
            cache = ensemble.members[names[row]]
            mean, std = (part.numpy() for part in cache.moments(3))
            expected = (stored(cache, "block3")[2, ROWS[row]] - mean) / std
            assert np.allclose(value, expected, atol=1e-6)
    assert mixed >= 5


def test_mean_gives_the_mean_of_all_teachers(ensemble: Ensemble) -> None:
    reader = TargetReader(ensemble, distill_settings(selection="mean"), seed=4, device=CPU)
    targets = ask(reader, ROWS, 0, 0)
    assert np.array_equal(targets.logits.numpy(), stored(ensemble.mean, "logits")[0, ROWS.numpy()])
    values, rows = targets.blocks[1]
    assert rows is None
    mean, std = (part.numpy() for part in ensemble.mean.moments(1))
    found = stored(ensemble.mean, "block1")[0, ROWS.numpy()]
    assert np.allclose(values.numpy(), (found - mean) / std, atol=1e-6)


@pytest.mark.parametrize("selection", ["random", "mean", "random_per_image"])
def test_the_target_of_an_image_is_the_mean_of_the_logits_of_its_views(
    selection: str, ensemble: Ensemble
) -> None:
    settings = distill_settings(selection=selection, targets="image")
    reader = TargetReader(ensemble, settings, seed=4, device=CPU)
    first, second = (ask(reader, ROWS, view, step=0) for view in (0, 2))
    assert torch.equal(first.logits, second.logits)
    caches = [ensemble.mean] if selection == "mean" else [*ensemble.members.values()]
    logits = np.array([stored(cache, "logits") for cache in caches], dtype=np.float64)
    means = logits.mean(axis=1)[:, ROWS.numpy()]
    distance = np.abs(means - first.logits.numpy()).max(axis=2)
    assert distance.min(axis=0).max() < 1e-3  # every row is that of a teacher
    if selection == "random":
        assert distance[ensemble.teachers.index(first.teacher or "")].max() < 1e-3
    assert not torch.equal(first.blocks[3][0], second.blocks[3][0])  # still those of the view


def test_the_mean_over_views_of_top_k_targets_is_that_of_what_is_stored(
    data: Prepared, tmp_path: Path
) -> None:
    cache = make_cache(data, tmp_path, top_k=1)
    logits = [cache.outputs(view, slice(None)).logits.numpy() for view in range(3)]
    found = mean_over_views(cache)
    assert found.dtype == torch.float16
    assert np.allclose(found.float().numpy(), np.mean(logits, axis=0), atol=1e-2)


def test_no_mean_is_computed_for_a_teacher_that_is_never_selected(
    data: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        make_cache(data, tmp_path, name, seed)
    ensemble = build_ensemble(tmp_path, "one", "two", weights="best")
    best = ensemble.teachers[int(np.argmax(ensemble.weights))]
    settings = distill_settings(targets="image", blocks=[])
    reader = TargetReader(ensemble, settings, seed=4, device=CPU)
    capsys.readouterr()
    for step in range(20):
        ask(reader, ROWS, 0, step)
    assert capsys.readouterr().out == f"averaging the logits of {best} over 3 views\n"


def test_the_mean_of_blocks_knows_its_own_moments(ensemble: Ensemble) -> None:
    """The mean of three blocks that are hardly correlated has a std far below one."""
    found = stored(ensemble.mean, "block2").reshape(-1, 16).astype(np.float64)
    mean, std = (part.numpy() for part in ensemble.mean.moments(2))
    assert np.allclose(mean, found.mean(axis=0), atol=1e-5)
    assert np.allclose(std, found.std(axis=0), rtol=1e-4)
    assert std.mean() < 0.9


@pytest.mark.parametrize("selection", ["random", "mean"])
def test_standardised_targets_have_mean_zero_and_std_one(
    selection: str, ensemble: Ensemble
) -> None:
    settings = distill_settings(selection=selection)
    reader = TargetReader(ensemble, settings, seed=4, device=CPU)
    values = torch.cat([ask(reader, torch.arange(96), v, 0).blocks[2][0] for v in range(3)])
    assert values.mean(dim=0).abs().max() < 1e-4
    std = values.std(dim=0, correction=0)
    assert ((std - 1).abs() < 1e-3).logical_or(std < 1e-6).all()


def test_blocks_are_raw_without_standardisation(ensemble: Ensemble) -> None:
    reader = TargetReader(ensemble, distill_settings(norm="none"), seed=4, device=CPU)
    values = ask(reader, ROWS, 0, 0).blocks[1][0].numpy()
    raw = [stored(cache, "block1")[0, ROWS.numpy()] for cache in ensemble.members.values()]
    assert any(np.array_equal(values, candidate) for candidate in raw)


def test_a_manifest_records_what_the_outputs_depend_on(data: Prepared, tmp_path: Path) -> None:
    cache = make_cache(data, tmp_path)
    manifest = json.loads((cache.folder / "manifest.json").read_text())
    assert manifest["data"] == data.fingerprint
    identity = {"seed": 0, "crop_padding": 1, "flip": False}
    assert manifest["views"] == {"version": 1, "crop": "padded", **identity}
    assert manifest["view_count"] == 3
    files = [f"views/{view:05d}.npy" for view in range(3)]
    assert [name for name in manifest["files"] if name.startswith("views")] == files
    assert manifest["code"] == views_digest()
    assert {"weights", "alignment", "dtype", "files", "blocks", "network"} <= set(manifest)


def test_top_k_keeps_the_largest_and_spreads_the_rest() -> None:
    probabilities = torch.tensor([[0.5, 0.02, 0.3, 0.08, 0.1], [0.2, 0.2, 0.2, 0.35, 0.05]])
    indices, largest = compress(probabilities.log(), 2)
    assert indices[0].tolist() == [0, 2]
    whole = expand(indices.numpy().astype(np.uint16), largest.numpy(), 5).exp()
    assert torch.allclose(whole[0], torch.tensor([0.5, 0.2 / 3, 0.3, 0.2 / 3, 0.2 / 3]))
    assert torch.allclose(whole.sum(dim=1), torch.ones(2))


def test_a_fully_confident_teacher_gives_no_infinities() -> None:
    indices, largest = compress(torch.tensor([[200.0, 0.0, 0.0, 0.0]]).log_softmax(dim=1), 2)
    whole = expand(indices.numpy().astype(np.uint16), largest.half().numpy(), 4)
    assert torch.isfinite(whole).all()
    assert whole.argmax() == 0


def test_ten_of_a_thousand_classes_take_forty_bytes_per_view() -> None:
    config = cache_slice(views=1, top_k=10, blocks=0)
    spec = NetworkSpec("tiny", 1.0, 1, 16, 1000)
    blocks = with_blocks(build_network(spec), spec, config.cache.blocks)
    record = build.record_of(config, spec, blocks)
    assert record is not None and record.itemsize == 40


def test_a_top_k_cache_gives_log_probabilities(data: Prepared, tmp_path: Path) -> None:
    whole = make_cache(data, tmp_path / "a", dtype="float32")
    cut = make_cache(data, tmp_path / "b", dtype="float32", top_k=2)
    assert cut.records(0).dtype.names == ("top_indices", "top_probabilities", *BLOCKS)
    # With two of three classes kept, the remaining probability is exact, too.
    expected = whole.outputs(1, np.arange(96)).logits.log_softmax(dim=1)
    assert torch.allclose(cut.outputs(1, np.arange(96)).logits, expected, atol=1e-5)


def test_top_k_must_leave_a_class_out(data: Prepared, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"cache.top_k=3: the dataset has 3 classes; allowed: 1 to 2"
    ):
        make_cache(data, tmp_path, top_k=3)


def test_the_mean_of_top_k_caches(data: Prepared, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        make_cache(data, tmp_path, name, seed, dtype="float32", top_k=2)
    ensemble = build_ensemble(tmp_path, "one", "two")
    rows = np.arange(96)
    expected = mean_log_probabilities(
        [c.outputs(0, rows).logits for c in ensemble.members.values()], [0.5, 0.5]
    )
    assert torch.allclose(ensemble.mean.outputs(0, rows).logits, expected, atol=1e-5)


def test_an_online_build_interrupted_at_its_end_resumes(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "seal", interrupt)
        make_cache(data, tmp_path, enabled=False)
    cache = make_cache(data, tmp_path, enabled=False)
    assert load(cache.folder / "network").spec == SPEC


def interrupt(*args: Any) -> None:
    raise KeyboardInterrupt


def test_the_mean_does_not_depend_on_how_many_images_are_averaged_at_once(
    ensemble: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(ensemble.folder / "mean" / "views")
    monkeypatch.setattr("meal.metrics._ROWS", 17)
    again = build_ensemble(tmp_path, "one", "two", "three")
    assert before == files_of(again.folder / "mean" / "views")


def test_the_mean_and_the_random_choice_use_fitted_weights(data: Prepared, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2), ("three", 3)):
        make_cache(data, tmp_path, name, seed, dtype="float32")
    ensemble = build_ensemble(tmp_path, "one", "two", "three", weights="fitted")
    weights = ensemble.card["weights"]["fitted"]
    assert ensemble.weights == weights != [1 / 3] * 3
    rows = np.arange(96)
    members = [cache.outputs(1, rows).logits.softmax(dim=1) for cache in ensemble.members.values()]
    mean = sum(w * member for w, member in zip(weights, members, strict=True))
    assert torch.allclose(ensemble.mean.outputs(1, rows).logits.exp(), mean, atol=1e-6)
    outputs = ensemble.log_probabilities("test")
    for kind, used in (("ensemble", [1 / 3] * 3), ("ensemble_fitted", weights)):
        mixed = sum(w * np.exp(p) for w, p in zip(used, outputs.teachers.values(), strict=True))
        assert np.allclose(np.exp(outputs.ensembles[kind]), mixed, atol=1e-12)
    reader = TargetReader(ensemble, distill_settings(), 0, CPU)
    batch = TargetBatch(torch.arange(4), 0, 0, torch.zeros(4, 1, 16, 16))
    selected = [reader.targets(replace(batch, step=step)).teacher for step in range(3000)]
    frequencies = [selected.count(name) / 3000 for name in ensemble.teachers]
    assert frequencies == pytest.approx(weights, abs=0.03)


def test_projected_caches_keep_one_value_per_channel_and_have_no_mean_block(
    data: Prepared, tmp_path: Path
) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        made = make_cache(data, tmp_path, name, seed, align="projected")
    assert stored(made, "block2").shape == (3, 96, 8)
    assert len(made.moments(2)[0]) == 8
    ensemble = build_ensemble(tmp_path, "one", "two")
    assert ensemble.block_sizes() == {name: {1: 8, 2: 8, 3: 8} for name in ("one", "two")}
    assert ensemble.mean.blocks == [] and stored(ensemble.mean, "logits").shape == (3, 96, 3)


def test_online_teachers_are_never_changed(data: Prepared, tmp_path: Path) -> None:
    make_cache(data, tmp_path, "one", 1, enabled=False)
    ensemble = build_ensemble(tmp_path, "one")
    online = OnlineTeacher(ensemble.members["one"], distill_settings(), CPU)
    before = {name: value.clone() for name, value in online._network.state_dict().items()}
    assert any(name.endswith("running_mean") for name in before)
    for step in range(3):
        online.outputs(TargetBatch(torch.arange(8), 0, step, torch.randn(8, 1, 16, 16) + 3))
    after = online._network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
