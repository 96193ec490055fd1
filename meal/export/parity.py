"""Whether the ONNX file gives PyTorch's answers, on every test image and in batches of any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import lcm
from typing import Any

import numpy as np
import torch
from torch import nn

from meal.core.errors import UserError
from meal.core.progress import Progress
from meal.data.prepared import Prepared, Split
from meal.predict.card import Input, Pixels
from meal.predict.session import Probabilities, run

BATCHES = (1, 7, 128)
TOLERANCE = 1e-4  # of a probability
_TIE = 1e-6  # a prediction may change between classes that are this close
_DIGITS = 2  # of the largest difference that are reported


@dataclass(frozen=True)
class Parity:
    """PyTorch against ONNX Runtime.

    Attributes:
        images: the number of test images, each compared in batches of every size.
        batch_sizes: the sizes.
        changed_predictions: how often the prediction differs, without ties.
        ties: the same where two classes are equally likely but for rounding.
        largest_difference: of a probability.
    """

    images: int
    batch_sizes: tuple[int, ...]
    changed_predictions: int
    ties: int
    largest_difference: float

    def check(self) -> None:
        """Raise UserError if the file is not the student."""
        if self.changed_predictions or not self.largest_difference <= TOLERANCE:
            raise UserError(
                f"model.onnx differs from the student: {self.changed_predictions} of "
                f"{self.images * len(self.batch_sizes)} predictions changed, probabilities by up "
                f"to {self.largest_difference:.2g} (allowed: {TOLERANCE:g}); this is a fault of "
                "the exporter or of ONNX Runtime: try other versions of torch and onnxruntime"
            )

    def as_json(self) -> dict[str, Any]:
        """For `model.json`; the difference is rounded."""
        difference = float(f"{self.largest_difference:.{_DIGITS}g}")
        sizes = list(self.batch_sizes)
        return {**asdict(self), "batch_sizes": sizes, "largest_difference": difference}


def measure(module: nn.Module, session: Any, data: Prepared, inputs: Input) -> Parity:
    """Compare a module with a session.

    Args:
        module: from pixels, as the file takes them, to probabilities; on the CPU.
        session: of the ONNX file.
        data: the prepared data.
        inputs: the pixels that both see.
    """
    changed = ties = 0
    largest = 0.0
    total = data.count("test")
    with Progress("compare PyTorch and ONNX Runtime", total, "images") as progress:
        for pixels in split_pixels(data, "test", inputs, lcm(*BATCHES)):
            expected = _in_torch(module, pixels, inputs)
            if not np.isfinite(expected).all():
                raise UserError(
                    "the student's probabilities are not finite; fix: dvc repro distill"
                )
            top2 = np.sort(expected, axis=1)[:, -2:]
            tied = top2[:, 1] - top2[:, 0] <= _TIE
            for size in BATCHES:
                found = np.concatenate(
                    [
                        run(session, pixels[start : start + size], inputs)
                        for start in range(0, len(pixels), size)
                    ]
                )
                differs = found.argmax(axis=1) != expected.argmax(axis=1)
                changed += int((differs & ~tied).sum())
                ties += int((differs & tied).sum())
                largest = float(np.maximum(largest, np.abs(found - expected).max()))  # keeps NaN
            progress.advance(len(pixels))
            if progress.due():
                progress.show({})
    return Parity(total, BATCHES, changed, ties, largest)


def split_pixels(data: Prepared, split: Split, inputs: Input, size: int) -> Iterator[Pixels]:
    """The images of a split as the student sees them, `(B, H, W, C)`, `size` at a time."""
    rows = torch.arange(data.count(split))
    for _, pixels in data.images(split).read(rows.split(size)):
        yield np.ascontiguousarray(inputs.centre(pixels.numpy()))


@torch.inference_mode()
def _in_torch(module: nn.Module, pixels: Pixels, inputs: Input) -> Probabilities:
    images = torch.from_numpy(inputs.fed(pixels))
    batches = [module(part) for part in images.split(max(BATCHES))]
    probabilities: Probabilities = torch.cat(batches).numpy()
    return probabilities
