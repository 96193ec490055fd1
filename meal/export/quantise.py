"""The student in 8 bits: static quantisation, calibrated on the validation images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from meal.data.prepared import Prepared
from meal.export.onnx_file import CannotExport
from meal.export.parity import split_pixels
from meal.predict.card import Input
from meal.predict.session import open_session, run

_IMAGES = 512  # for calibration, at most
_BATCH = 64


def write_int8(source: Path, target: Path, data: Prepared, inputs: Input) -> None:
    """Quantise the weights and activations of an ONNX file (QDQ, one scale per channel).

    Raises:
        CannotExport: if ONNX Runtime's quantisation refuses the network.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = _calibration(data, inputs)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    prepared = target.with_suffix(".tmp")
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quant_pre_process(str(source), str(prepared))
        quantize_static(
            str(prepared), str(target), Images(), quant_format=QuantFormat.QDQ, per_channel=True
        )
    except (ImportError, OSError, MemoryError):
        raise
    except Exception as error:  # it raises anything
        raise CannotExport(f"ONNX Runtime cannot quantise the network: {error}") from None
    finally:
        logging.disable(level)
        prepared.unlink(missing_ok=True)


def test_error(path: Path, data: Prepared, inputs: Input) -> float:
    """The top-1 error of a file on the test images, in percent."""
    session = open_session(path)
    predicted = [
        run(session, pixels, inputs).argmax(axis=1)
        for pixels in split_pixels(data, "test", inputs, _BATCH)
    ]
    wrong = np.concatenate(predicted) != data.labels("test").numpy()
    return round(100 * float(wrong.mean()), 2)


def _calibration(data: Prepared, inputs: Input) -> Iterator[dict[str, Any]]:
    seen = 0
    for pixels in split_pixels(data, "validation", inputs, _BATCH):
        if seen >= _IMAGES:
            return
        seen += len(pixels)
        yield {"images": inputs.fed(pixels)}
