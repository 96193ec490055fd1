"""Probabilities from an exported student's ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meal.core.errors import UserError
from meal.predict.card import CARD, FIX, ONNX, Card, Input, Pixels

Probabilities = NDArray[np.float32]
_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


class OnnxStudent:
    """An exported student that ONNX Runtime runs on the CPU.

    Attributes:
        card: what the folder says of it.
    """

    def __init__(self, folder: Path, name: str = ONNX, threads: int = 0) -> None:
        """Open a student.

        Args:
            folder: what the stage `export` wrote.
            name: the file: `model.onnx`, or `model.int8.onnx`.
            threads: of ONNX Runtime; 0 for one per core.

        Raises:
            UserError: if a file is missing or damaged.
        """
        self.card = Card.read(folder)
        path = self.card.file(name)
        self._session = open_session(path, threads)
        size, channels = self.card.input.size, self.card.input.channels
        taken, given = self._session.get_inputs(), self._session.get_outputs()
        if (
            [each.name for each in taken] != ["images"]
            or taken[0].shape[1:] != [size, size, channels]
            or taken[0].type != _TYPES[self.card.input.dtype]
            or given[0].shape[1:] != [len(self.card.classes)]
        ):
            raise UserError(f"{path} does not fit {CARD} beside it; fix: {FIX}")

    def probabilities(self, pixels: Pixels) -> Probabilities:
        """From pixels `(N, H, W, C)`, 0 to 255, to probabilities `(N, classes)`."""
        return run(self._session, pixels, self.card.input)


def open_session(path: Path, threads: int = 0) -> Any:
    """An ONNX Runtime session on the CPU; raise UserError if it cannot read the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"ONNX Runtime cannot read {path}: {reason}") from None


def run(session: Any, pixels: Pixels, inputs: Input) -> Probabilities:
    """Probabilities `(N, classes)` of a session for pixels `(N, H, W, C)`, 0 to 255."""
    answer: Probabilities = session.run(None, {"images": inputs.fed(pixels)})[0]
    return answer
