"""The exported folder: weights, ONNX file, `model.json`, and a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from meal.core.digests import sha256
from meal.core.files import atomic_folder, read_json, umask, write_errors, write_json, write_sealed
from meal.data.prepared import Prepared
from meal.evaluation.predictions import BASELINE, ENSEMBLE, STUDENT, Predictions
from meal.evaluation.significance import Interval, error_interval, paired_bootstrap
from meal.export.model_card import write_model_card
from meal.export.onnx_file import CannotExport, PixelsToProbabilities, write_onnx
from meal.export.parity import Parity, measure, split_pixels
from meal.export.quantise import test_error, write_int8
from meal.export.settings import ExportSlice
from meal.export.student import Student
from meal.models.adapter import Adapted
from meal.models.architectures import TIMM
from meal.models.checkpoint import Loaded
from meal.models.parts import inner
from meal.predict.card import CARD, FIX, INT8, ONNX, VERSION, WEIGHTS, Input
from meal.predict.session import open_session

# Facts about published weights in timm's configuration of an architecture.
_PUBLISHED = (
    "tag",
    "license",
    "origin_url",
    "paper_ids",
    "paper_name",
    "notes",
    "hf_hub_id",
    "url",
)


@dataclass(frozen=True)
class Finished:
    """What the earlier stages left of a run.

    Attributes:
        student: the trained student, on the CPU.
        data: the prepared data.
        predictions: of the test images.
        metrics: `reports/scores.json`.
    """

    student: Loaded
    data: Prepared
    predictions: Predictions
    metrics: Mapping[str, Any]


def export(config: ExportSlice, run: Finished, folder: Path) -> None:
    """Write the student into `folder`.

    Raises:
        UserError: if the ONNX file gives other answers than the student.
    """
    manifest, dtype = run.data.manifest, config.input
    inputs = Input(
        manifest["side"],
        run.data.shape[1],
        run.data.shape[0],
        tuple(run.data.mean),
        tuple(run.data.std),
        dtype,
    )
    classes = tuple(str(name) for name in manifest["classes"])
    spec, network = run.student.spec, run.student.network
    student = Student(network, classes, inputs).eval()
    # A strided network computes in another order, which ONNX does not know.
    network.to(memory_format=torch.contiguous_format)
    with atomic_folder(folder) as temporary:
        _write_weights(run.student, classes, inputs, temporary)
        onnx = _write_onnx_files(config, student, run.data, inputs, temporary)
        facts = {
            "version": VERSION,
            "name": config.name,
            "network": asdict(spec),
            "classes": list(classes),
            "input": asdict(inputs),
            "onnx": onnx,
            "metrics": _metrics(run),
            "data": {
                "title": manifest["title"],
                "licence": config.licence,
                "counts": manifest["counts"],
                "labels": manifest["labels"],
                "fingerprint": run.data.fingerprint,
            },
            "teachers": config.teachers,
            "method": config.method,
        }
        write_model_card(facts, temporary / "README.md")
        for path in temporary.iterdir():
            path.chmod(0o666 & ~umask())  # safetensors writes private files
        files = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
        write_sealed(temporary / CARD, {**facts, "files": files})


def _write_weights(loaded: Loaded, classes: tuple[str, ...], inputs: Input, folder: Path) -> None:
    """Write the state of the network, without the input adapter around it.

    For one of timm's, also write what `timm.create_model("local-dir:FOLDER", pretrained=True)`
    reads.
    """
    network = loaded.network
    bare = inner(network)[1]
    with write_errors(folder / WEIGHTS, SafetensorError):
        if not loaded.spec.arch.startswith(TIMM):
            # Clones: weights may share memory, which the format does not allow.
            state = {name: value.clone() for name, value in bare.state_dict().items()}
            save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
            return
        from timm.models import save_for_hf

        expected = network.adapter.inputs if isinstance(network, Adapted) else inputs
        seen = {
            "input_size": (expected.channels, expected.size, expected.size),
            "mean": _by_channel(expected.mean, expected.channels),
            "std": _by_channel(expected.std, expected.channels),
            "crop_pct": 1.0,
            "crop_mode": "center",
            "interpolation": "bilinear",
        }
        names = {"label_names": list(classes)}
        save_for_hf(bare, str(folder), names, safe_serialization=True, data_config=seen)
    # What timm knows of its own weights is not true of these.
    config = read_json(folder / "config.json", FIX)
    for key in _PUBLISHED:
        config["pretrained_cfg"].pop(key, None)
    write_json(folder / "config.json", config)


def _by_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One value per channel; a single one stands for all."""
    return tuple(values) if len(values) == channels else tuple(values) * channels


def _write_onnx_files(
    config: ExportSlice, student: Student, data: Prepared, inputs: Input, folder: Path
) -> dict[str, Any]:
    """Write and verify the ONNX files; return what `model.json` says of them."""
    example = next(split_pixels(data, "test", inputs, 1))[0]
    facts = {
        "classes": "\n".join(student.classes),
        "input_size": f"{inputs.size}x{inputs.size}x{inputs.channels}",
        "input": f"{inputs.dtype} (N, H, W, C), 0 to {255 if inputs.dtype == 'uint8' else 1}",
        "weights_sha256": sha256(folder / WEIGHTS),
    }
    try:
        write_onnx(student, example, inputs.dtype, facts, folder / ONNX)
    except CannotExport as error:
        reason = f"PyTorch's exporter cannot take {config.name}: {error}"
        print(f"no {ONNX}: {reason}", flush=True)
        return {"reason": reason}
    threads = torch.get_num_threads()
    module = PixelsToProbabilities(student, inputs.dtype).eval()
    parity = measure(module, open_session(folder / ONNX, threads), data, inputs)
    parity.check()
    print(_said(parity), flush=True)
    found: dict[str, Any] = {"parity": parity.as_json()}
    if config.int8:
        try:
            write_int8(folder / ONNX, folder / INT8, data, inputs)
        except CannotExport as error:
            print(f"no {INT8}: {error}", flush=True)
            return {**found, "int8_reason": str(error)}
        found["int8"] = {
            "top1_error": test_error(folder / INT8, data, inputs),
            "bytes": (folder / INT8).stat().st_size,
        }
    return found


def _said(parity: Parity) -> str:
    return (
        f"{ONNX}: {parity.changed_predictions} predictions changed on {parity.images} test images "
        f"in batches of {', '.join(map(str, parity.batch_sizes))}; probabilities differ by at most "
        f"{parity.largest_difference:.1g}"
    )


def _metrics(run: Finished) -> dict[str, Any]:
    """Scores on the test images of the student and its rivals, with intervals over the images."""
    return {
        "test_images": len(run.predictions.labels),
        **{name: _scores(run, name) for name in (STUDENT, BASELINE, ENSEMBLE)},
        "differences": run.metrics["significance"],
        "cost": {name: value for name, value in run.metrics["cost"].items() if name != "teachers"},
    }


def _scores(run: Finished, name: str) -> dict[str, Any]:
    model = run.predictions.models[name]
    intervals = {
        "top1_error": _ends(error_interval(run.predictions.correct(name)), 2),
        "nll": _ends(paired_bootstrap(-model.log_likelihood.astype(np.float64)), 4),
        "brier": _ends(paired_bootstrap(model.brier.astype(np.float64)), 4),
    }
    return {**run.metrics[name], "intervals": intervals}


def _ends(interval: Interval, decimals: int) -> list[float]:
    return [round(interval.low, decimals), round(interval.high, decimals)]
