"""Reading ahead in worker processes: a worker that cannot deliver is an error, not a wait."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import ROOT

# Workers deliver through shared memory. A limit on the size of files is a limit on that, too.
READS = """
import resource
import torch
from torch.utils.data import Dataset
from meal.core.errors import UserError
from meal.data.stores import load_ahead

class Images(Dataset):
    def __getitem__(self, rows):
        return torch.zeros(len(rows), 100_000)

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        list(load_ahead(Images(), [torch.arange(8)] * 4, workers=2))
    except UserError as error:
        print(error)
"""


def test_a_batch_that_does_not_fit_in_shared_memory_is_an_error() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", READS],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "enlarge /dev/shm, or lower runtime.workers" in ended.stdout
    assert "Traceback" not in ended.stderr
