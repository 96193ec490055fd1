"""A kill at any moment loses nothing: the next run ends with the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.common import make_folder_project
from tests.soak.kills import kill_stages
from tests.stages.conftest import make_project

pytestmark = pytest.mark.slow


def test_killed_stages_end_with_the_bytes_of_an_uninterrupted_run(tmp_path: Path) -> None:
    own = make_project(tmp_path / "killed")
    own.run("dvc", "repro")
    tally = kill_stages(own, kills=24, seed=0)
    assert tally.differing == []
    assert tally.noticed >= 16 and tally.resumed >= 1


def test_so_do_stages_whose_images_are_decoded_by_workers(tmp_path: Path) -> None:
    own = make_folder_project(tmp_path / "killed")
    own.run("dvc", "repro")
    tally = kill_stages(own, kills=8, seed=1)
    assert tally.differing == []
    assert tally.noticed >= 4
