"""Views and rows are the same in any process, and reading a large cache takes bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from meal.targets.cache import create, record, seal, view_file

READ_VIEW = """
import sys, hashlib, torch
from meal.views.pipelines import PlainPipeline, ViewPipeline
from meal.data.stores import ArrayStore
from meal.views.crops import PaddedCrops
from meal.views.families import ViewFamily
torch.set_num_threads(int(sys.argv[1]))
images = (torch.arange(50 * 16 * 16 * 3) % 251).to(torch.uint8).view(50, 16, 16, 3)
plain = PlainPipeline(ArrayStore(images), [0.5] * 3, [0.25] * 3, torch.device("cpu"))
views = ViewPipeline(plain, ViewFamily(PaddedCrops(7, 4, True, 162)))
order = torch.tensor(chosen := [int(i) for i in sys.argv[2].split(",")])
batch = views.view(order, 11)
for image in sorted(chosen):
    row = batch[chosen.index(image)].contiguous().numpy()
    print(image, hashlib.sha256(row.tobytes()).hexdigest())
"""


def test_a_view_is_the_same_in_any_process_and_order_with_any_thread_count() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", READ_VIEW, threads, order],
            check=True, capture_output=True, text=True,
        ).stdout
        for threads, order in (("1", "3,40,12"), ("2", "12,3,40"))
    ]  # fmt: skip
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 3


READ_CACHE = """
import sys
from pathlib import Path
import numpy as np
from meal.targets.cache import TargetCache
cache = TargetCache(Path(sys.argv[1]), "cache@one")
images = len(cache.records(0))
order = np.random.default_rng(0).permutation(images)
for view in range(8):
    for start in range(0, images, 128):
        cache.outputs(view, order[start:start + 128]).logits
for line in open("/proc/self/status"):
    if line.startswith("RssAnon"):
        print(int(line.split()[1]) // 1024)
"""


READ_ROWS = """
import sys, hashlib
from pathlib import Path
import numpy as np
from meal.targets.cache import TargetCache
order = [int(i) for i in sys.argv[2].split(",")]
rows = TargetCache(Path(sys.argv[1]), "cache@one").outputs(1, np.array(order)).logits.numpy()
for image in sorted(order):
    print(image, hashlib.sha256(rows[order.index(image)].tobytes()).hexdigest())
"""


def test_concurrent_processes_read_the_same_rows_in_any_order(tmp_path: Path) -> None:
    for view in range(2):
        records = create(tmp_path / view_file(view), record(10, "float16", None, {1: 4}), (50,))
        records["logits"] = np.random.default_rng(view).standard_normal((50, 10))
        records.flush()
    np.save(tmp_path / "test_logits.npy", np.zeros((1, 10), np.float32))
    seal(tmp_path, {"name": "small", "top_k": None, "blocks": {}})
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", READ_ROWS, str(tmp_path), order],
            stdout=subprocess.PIPE, text=True,
        )
        for order in ("3,40,12", "12,3,40", "40,12,3")
    ]  # fmt: skip
    outputs = {process.communicate()[0] for process in processes}
    assert len(outputs) == 1
    assert len(outputs.pop().splitlines()) == 3


@pytest.mark.slow
def test_four_gibibytes_are_read_with_bounded_memory(tmp_path: Path) -> None:
    kind = record(1000, "float16", None, {})
    files = [tmp_path / view_file(view) for view in range(8)]
    for file in files:
        create(file, kind, (270_000,)).flush()
    assert sum(file.stat().st_size for file in files) > 4 * 2**30
    np.save(tmp_path / "test_logits.npy", np.zeros((1, 1000), np.float32))
    seal(tmp_path, {"name": "large", "top_k": None, "blocks": {}})
    result = subprocess.run(
        [sys.executable, "-c", READ_CACHE, str(tmp_path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert int(result.stdout) < 1536
