"""A cache that several processes build at once and `dvc repro` puts together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stages.conftest import Project


@pytest.mark.slow
def test_processes_share_a_cache_and_dvc_puts_it_together(clean: Project) -> None:
    before = clean.read("dvc.lock")
    for name in ("logits.npy", "manifest.json"):
        (clean.folder / "artifacts/caches/vgg" / name).unlink()
    environment = {**os.environ, "PYTHONPATH": str(clean.folder)}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "stages.cache", "vgg"],
            cwd=clean.folder,
            env={**environment, "MEAL_SHARD": f"{which}/2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for which in (1, 2)
    ]
    for which, process in enumerate(running, start=1):
        output = process.communicate()[0]
        assert process.returncode == 0, output
        assert f"part {which}-of-2 of the cache is done; once all parts are: dvc" in output
    result = clean.run("dvc", "repro", "--force", "--single-item", "cache@vgg")
    assert "resumed after" in result.stdout
    assert clean.read("dvc.lock") == before
    environment["MEAL_SHARD"] = "1/2"
    refused = subprocess.run(
        [Path(sys.executable).parent / "dvc", "repro", "--force", "--single-item", "cache@vgg"],
        cwd=clean.folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert "run dvc repro without MEAL_SHARD" in refused.stderr + refused.stdout
