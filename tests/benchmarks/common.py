"""What the benchmarks share: interleaved timing, and reports that name machine and commit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from meal.core.files import write_json
from meal.report.evidence import commit, machine

REPORTS = Path("reports/benchmarks")


def medians(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each side; every repeat calls all sides in turn."""
    for call in sides.values():  # warm up buffers, caches and primitives
        call()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, call in sides.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def report(name: str, rows: list[dict[str, Any]], note: str) -> None:
    """Print the rows as a table and write them to `reports/benchmarks/NAME.json`."""
    import pandas as pd

    print(f"\n{name}: {note}\n{pd.DataFrame(rows).to_string(index=False)}", flush=True)
    where = {**machine(), "threads": torch.get_num_threads(), "commit": commit()}
    write_json(REPORTS / f"{name}.json", {"note": note, "machine": where, "rows": rows})
