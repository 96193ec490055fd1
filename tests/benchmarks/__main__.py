"""`python -m tests.benchmarks [NAME ...]`: run all benchmarks, or those that are named."""

from __future__ import annotations

import sys

from tests.benchmarks import (
    break_even,
    default_run,
    options,
    picture,
    pipelines,
    profile,
    scale,
    sharing,
    stages,
    step_cost,
    throughput,
)

BENCHMARKS = {
    "step_cost": step_cost.run,
    "throughput": throughput.run,
    "cifar10": throughput.run_cifar10,
    "profile": profile.run,
    "views": pipelines.run_views,
    "cache_build": pipelines.run_cache_build,
    "cache_reading": pipelines.run_reading,
    "options": options.run,
    "startup": stages.run_startup,
    "memory": stages.run_memory,
    "scale": scale.run,
    "break_even": break_even.run,
    "default_run": default_run.run,
    "threads": sharing.run_threads,
    "side_by_side": sharing.run_side_by_side,
    "picture": picture.draw,
}

for name in sys.argv[1:] or BENCHMARKS:
    BENCHMARKS[name]()
