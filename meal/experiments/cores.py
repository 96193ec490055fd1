"""Sharing out the cores between processes that run at once."""

from __future__ import annotations

import os
from collections.abc import MutableMapping


def share_cores(environment: MutableMapping[str, str], jobs: int) -> None:
    """Give each of `jobs` processes its share of the cores, unless `environment` says otherwise.

    Two processes with one thread each are faster than one with two.
    """
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
