"""`python -m tests.soak [SCALE]`: 300 kills, 500 flipped bits and ten minutes of crowding.

SCALE multiplies all three. It takes about an hour and a half on two cores and writes
`reports/results/reliability.md`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from meal.report.evidence import header
from meal.report.tables import markdown
from tests.soak.common import Tally, make_folder_project
from tests.soak.crowd import crowd
from tests.soak.dvc_kills import kill_repro, kill_tasks, kill_temporary
from tests.soak.flips import flip_cache, flip_outputs
from tests.soak.kills import kill_stages
from tests.stages.conftest import Project, make_project

REPORT = Path("reports/results/reliability.md")
Attack = Callable[[Project, int, int], Tally]


def on_digits(project: Project, kills: int, seed: int) -> Tally:
    return kill_stages(project, kills, seed, "stages, images in an array")


def on_files(project: Project, kills: int, seed: int) -> Tally:
    return kill_stages(project, kills, seed, "stages, `data.store: index`, two workers")


# The attack, how often, and the kind of project.
PARTS: list[tuple[Attack, int, Callable[[Path], Project]]] = [
    (on_files, 128, make_folder_project),
    (on_digits, 128, make_project),
    (kill_repro, 30, make_folder_project),
    (kill_tasks, 6, make_project),
    (kill_temporary, 8, make_project),
    (flip_cache, 150, make_project),
    (flip_outputs, 350, make_folder_project),
]


def attack(part: int, times: int, seed: int) -> Tally:
    """Run one part in a project of its own."""
    call, _, make = PARTS[part]
    started = time.monotonic()
    try:
        with made(make) as project:
            tally = call(project, times, seed)
    except Exception as error:  # the other parts go on
        tally = Tally(call.__name__, differing=[f"{call.__name__}: {error!r}"])
    print(f"{tally.kind}: {tally}, {time.monotonic() - started:.0f} s", flush=True)
    return tally


@contextmanager
def made(make: Callable[[Path], Project]) -> Iterator[Project]:
    """A finished project in a temporary folder."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        project = make(Path(folder) / "project")
        project.run("dvc", "repro")
        project.commit("first run")
        yield project


def main(scale: float) -> None:
    """Run all parts, two at a time, and write the report."""
    seed = int(time.time())
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        waiting = [
            pool.submit(attack, part, max(1, round(times * scale)), seed)
            for part, (_, times, _) in enumerate(PARTS)
        ]
        tallies = [each.result() for each in waiting]
    with made(make_project) as project:
        tallies.append(crowd(project, 10 * scale))
    rows = [
        {
            "attack": each.kind,
            "attempts": each.attempts,
            "noticed": each.noticed,
            "resumed": each.resumed,
            "differing": len(each.differing),
        }
        for each in tallies
    ]
    table = markdown(pd.DataFrame(rows))
    REPORT.write_text(f"# Reliability\n\n{header('tests.soak')}\n\n{table}\n\n{NOTE}\n")
    differing = [line for each in tallies for line in each.differing]
    print("\n".join([table, *differing]))
    sys.exit(bool(differing))


NOTE = """\
*Noticed*: the process was still running when the signal came; damage that was reported with the
name of the file, or by `dvc checkout`. *Resumed*: the next run went on in the middle; for bits in
DVC's cache, the file was not part of the outputs, which stayed the same. *Differing*: the result
was not, byte for byte, that of an undisturbed run."""

if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
