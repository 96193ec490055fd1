"""Predictions for image files and folders: decoded on all cores, in batches, in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from meal.core.errors import UserError
from meal.data.decoding import quiet, read_image
from meal.datasets.folders import find_images
from meal.predict.card import Input, Pixels
from meal.predict.session import OnnxStudent, Probabilities

_BATCH = 32
_AHEAD = 4 * _BATCH  # images that are decoded before they are needed


@dataclass(frozen=True)
class Prediction:
    """The answer for one file: probabilities `(classes,)`, or what is wrong with the file."""

    path: Path
    probabilities: Probabilities | None = None
    fault: str = ""


def list_images(named: Sequence[Path]) -> tuple[list[Path], list[Prediction]]:
    """The named files, and the images at any depth in the named folders; and what is missing."""
    found: list[Path] = []
    faults: list[Prediction] = []
    for path in named:
        try:
            if path.is_dir():
                said: list[UserError] = []
                images, _ = find_images(path, said.append)
                faults += [Prediction(path, fault=str(error)) for error in said]
                if not images and not said:
                    raise UserError("the folder holds no images")
                found += map(Path, images)
            else:
                path.stat()
                found.append(path)
        except (OSError, UserError) as error:
            faults.append(Prediction(path, fault=_words(error)))
    return found, faults


def predict_files(student: OnnxStudent, paths: Sequence[Path]) -> Iterator[Prediction]:
    """A prediction for each file, in order; a file that is no image does not stop the others."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rest = iter(paths)
    waiting: deque[tuple[Path, Future[Pixels | str]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        # A bar on a terminal, and nothing elsewhere: standard output is for the predictions.
        with quiet(), tqdm(total=len(paths), desc="predict", unit="image", disable=None) as bar:
            while True:
                for path in islice(rest, _AHEAD - len(waiting)):
                    waiting.append((path, pool.submit(_read, path, student.card.input)))
                if not waiting:
                    return
                batch = [waiting.popleft() for _ in range(min(_BATCH, len(waiting)))]
                yield from _predict(student, [(path, each.result()) for path, each in batch])
                bar.update(len(batch))
    finally:
        pool.shutdown(cancel_futures=True)


def _read(path: Path, inputs: Input) -> Pixels | str:
    """The pixels of a file, or what is wrong with it."""
    try:
        return inputs.pixels(read_image(path))
    except (OSError, UserError) as error:
        return _words(error)
    except MemoryError:
        return "too large for the memory"


def _predict(
    student: OnnxStudent, batch: Sequence[tuple[Path, Pixels | str]]
) -> Iterator[Prediction]:
    images = [pixels for _, pixels in batch if not isinstance(pixels, str)]
    answers = iter(student.probabilities(np.stack(images)) if images else ())
    for path, pixels in batch:
        if isinstance(pixels, str):
            yield Prediction(path, fault=pixels)
        else:
            yield Prediction(path, next(answers))


def _words(error: OSError | UserError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
