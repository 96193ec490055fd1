"""A folder of 20,000 JPEG files through the pipeline: images per second, memory, and a forecast.

Memory is the proportional set size of a stage together with its workers, sampled.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import yaml
from PIL import Image

from meal.report.evidence import header
from tests.benchmarks.common import report
from tests.conftest import ROOT
from tests.stages.conftest import Project, make_project

FILES, CLASSES, SIDE, TEST = 20_000, 20, 256, 0.1
VIEWS, EPOCHS, TOP_K = 2, 2, 5
TEACHERS = ("resnet", "mobilenet")
_SECONDS_BETWEEN_SAMPLES = 0.5

IMAGENET = {"images": 1_281_167, "views": 8, "teachers": 2, "top_k": 10}
NAMED_THROUGHPUT = 2_500  # images per second through a teacher: assumed, as for one large GPU


def write_image(task: tuple[str, int]) -> None:
    """Write a picture of about 20 KB: noisy stripes whose direction and colour show its class."""
    folder, number = task
    label, generator = number % CLASSES, np.random.default_rng(number)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    turn = np.pi * label / CLASSES
    phase = generator.uniform(0, 6)
    stripes = np.sin(25 * (x * np.cos(turn) + y * np.sin(turn)) + phase)
    colour = np.random.default_rng(label).uniform(0.2, 1, 3)
    values = 128 + 60 * stripes[..., None] * colour + generator.normal(0, 40, (SIDE, SIDE, 3))
    split = "test" if number < FILES * TEST else "train"
    place = Path(folder) / split / f"class{label:02d}" / f"{number:06d}.jpg"
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(place, quality=80)


def write_images(folder: Path) -> None:
    """Write all images, with one process per core."""
    with multiprocessing.Pool(os.cpu_count()) as pool:
        pool.map(write_image, [(str(folder), number) for number in range(FILES)], chunksize=200)


def measure(project: Project, *command: str) -> tuple[float, float]:
    """Seconds and peak MiB of a command and its children."""
    started, peak = time.monotonic(), 0.0
    process = subprocess.Popen(command, cwd=project.folder, stdout=sys.stderr)
    while process.poll() is None:
        try:
            tree = [psutil.Process(process.pid)]
            tree += tree[0].children(recursive=True)
            used = sum(each.memory_full_info().pss for each in tree)
            peak = max(peak, used / 2**20)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            pass
        time.sleep(_SECONDS_BETWEEN_SAMPLES)
    assert process.returncode == 0, command
    return time.monotonic() - started, peak


def parameters(project: Project, root: Path) -> dict[str, Any]:
    """Small networks at 48 pixels; views cut from 96 pixels; files decoded when read."""
    params: dict[str, Any] = yaml.safe_load((project.folder / "params.yaml").read_text())
    for name in TEACHERS:
        params["networks"][name]["width"] = 0.125
    params.update(dataset="folder", student="resnet", teachers=list(TEACHERS))
    params["data"].update(root=str(root), image_size=48, source_size=96, store="index")
    params["views"].update(count=VIEWS, crop="resized", flip=False)
    params["cache"].update(top_k=TOP_K)
    params["teaching"].update(epochs=1, warmup_epochs=0.2, batch_size=128)
    params["distill"].update(epochs=EPOCHS, warmup_epochs=0.2, batch_size=128)
    return params


def run() -> None:
    """Measure every stage, and forecast a cache for ImageNet."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "images"
        write_images(root)
        size = sum(path.stat().st_size for path in root.rglob("*.jpg")) / 2**20
        project = make_project(Path(name) / "project")
        (project.folder / "params.yaml").write_text(yaml.safe_dump(parameters(project, root)))
        trained = round(FILES * (1 - TEST) * 0.9)
        stages = {"configure": 0, "prepare": FILES}
        stages |= {f"teacher {teacher}": trained for teacher in TEACHERS}
        stages |= {f"cache {teacher}": trained * VIEWS for teacher in TEACHERS}
        stages |= {"ensemble": 0, "baseline": trained * EPOCHS, "distill": trained * EPOCHS}
        stages |= {"evaluate": round(FILES * TEST) * 2}
        rows: list[dict[str, Any]] = []
        for stage, images in stages.items():
            command = (sys.executable, "-m", *f"stages.{stage}".split())
            seconds, peak = measure(project, *command)
            speed = round(images / seconds) if images else None
            rows.append(
                {
                    "stage": stage,
                    "seconds": round(seconds, 1),
                    "images_per_second": speed,
                    "peak_mib": round(peak),
                }
            )
            print(rows[-1], flush=True)
    note = (
        f"{FILES} JPEG files of {SIDE}x{SIDE} pixels, {size:.0f} MiB, {CLASSES} classes; an index "
        f"of files, cut from 96 to 48 pixels; {VIEWS} views, top-k {TOP_K}, {EPOCHS} epochs; "
        "rates count the training images seen and include start-up"
    )
    report("scale", rows, note)
    write_results(rows, note)


def write_results(rows: list[dict[str, Any]], note: str) -> None:
    """Write the measurements and the forecast to `reports/results/scale.md`."""
    measured = pd.DataFrame(rows).fillna("").astype(str).replace(r"\.0$", "", regex=True)
    expected = pd.DataFrame(forecast().items(), columns=["ImageNet", "forecast"])
    text = (
        f"# A folder of {FILES} JPEG files\n\n{header('tests.benchmarks')}\n\n{note}.\n\n"
        f"{measured.to_markdown(index=False)}\n\n"
        "Memory is the proportional set size of a stage together with its workers, sampled. The "
        "training stages decode and train on the same cores.\n\n"
        f"## Forecast\n\n{IMAGENET['images']} images, {IMAGENET['views']} views, "
        f"{IMAGENET['teachers']} teachers, top-k {IMAGENET['top_k']}. Bytes follow from the "
        "arrays' layout, for the teachers and their mean; hours from an assumed throughput of "
        f"{NAMED_THROUGHPUT} images per second through a teacher, if decoding keeps up.\n\n"
        f"{expected.to_markdown(index=False, disable_numparse=True)}\n"
    )
    (ROOT / "reports" / "results" / "scale.md").write_text(text)


def forecast() -> dict[str, str]:
    """What a cache for ImageNet takes: bytes from the arrays' layout, time from the throughput."""
    views = IMAGENET["images"] * IMAGENET["views"]
    logits, blocks = 4 * IMAGENET["top_k"], 3 * 16 * 2  # bytes per view
    members = IMAGENET["teachers"] + 1
    passes = views * IMAGENET["teachers"]
    return {
        "disk, logits only (GB)": f"{views * logits * members / 1e9:.2f}",
        "disk, with three blocks (GB)": f"{views * (logits + blocks) * members / 1e9:.2f}",
        "teacher forward passes (millions)": f"{passes / 1e6:.1f}",
        f"hours at {NAMED_THROUGHPUT} images per second": f"{passes / NAMED_THROUGHPUT / 3600:.1f}",
    }
