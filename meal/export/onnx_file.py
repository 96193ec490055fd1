"""The student as an ONNX file: pixels in, probabilities out."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from meal.export.student import Student
from meal.predict.card import Pixels

_EXAMPLES = 2  # images; the exporter fixes a batch of one


class PixelsToProbabilities(nn.Module):
    """A student with everything around it that the ONNX file holds."""

    def __init__(self, student: Student, dtype: str) -> None:
        super().__init__()
        self._student, self._dtype = student, dtype

    def forward(self, images: Tensor) -> Tensor:
        """From pixels `(N, H, W, C)`, uint8 or float32 in [0, 1], to probabilities."""
        pixels = images if self._dtype == "uint8" else images * 255
        return torch.softmax(self._student(self._student.normalise(pixels)), dim=1)


class CannotExport(Exception):  # noqa: N818 - an outcome: the folder is made without the file
    """The exporter cannot take the network; the message says why."""


def write_onnx(
    student: Student, example: Pixels, dtype: str, facts: Mapping[str, str], path: Path
) -> None:
    """Write the ONNX file with a dynamic batch; equal students give equal bytes.

    Args:
        student: in eval mode, on the CPU.
        example: one image `(H, W, C)`.
        dtype: of the input, `uint8` or `float32`.
        facts: texts for the file's metadata.
        path: the file.

    Raises:
        CannotExport: if PyTorch's exporter or ONNX's checker refuses the network.
    """
    images = torch.from_numpy(np.stack([example] * _EXAMPLES))
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                PixelsToProbabilities(student, dtype).eval(),
                (images if dtype == "uint8" else images.float() / 255,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["images"],
                output_names=["probabilities"],
                verbose=False,
            )
        assert program is not None
        model = program.model_proto
        _strip(model)
        for key, text in facts.items():
            model.metadata_props.add(key=key, value=text)
        onnx.checker.check_model(model)
    except Exception as error:  # the exporter raises anything, and its causes say more
        chain = list(_causes(error))
        for cause in chain:
            if isinstance(cause, (ImportError, OSError, MemoryError)):
                raise cause from None  # a fault of the machine, not of the network
        raise CannotExport(_reason(chain[-1])) from error
    onnx.save(model, str(path))


def _strip(model: Any) -> None:
    """Remove what the exporter notes about the source: paths would differ between machines."""
    del model.metadata_props[:]
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        del graph.metadata_props[:]
        graph.doc_string = ""
        for values in ("node", "initializer", "input", "output", "value_info"):
            for each in getattr(graph, values, ()):
                del each.metadata_props[:]
                each.doc_string = ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which reports on parts of itself that are not used here."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it, the innermost cause last."""
    while error is not None:
        yield error
        error = error.__cause__


def _reason(error: BaseException) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"
