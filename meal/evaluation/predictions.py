"""Every model's predictions for every test image: a small file, but enough to compare models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from meal.core.digests import sha256
from meal.core.errors import UserError
from meal.core.files import atomic_folder, check_file, read_sealed, write_errors, write_sealed
from meal.core.paths import SIGNIFICANCE
from meal.evaluation.metrics import brier_scores
from meal.metrics import Floats, Labels

STUDENT, BASELINE, ENSEMBLE, FITTED, VOTE = (
    "student", "baseline", "ensemble", "ensemble_fitted", "vote",
)  # fmt: skip
TEACHER = "teachers/"  # before a teacher's name
FIX = "dvc repro evaluate"
# The names of a model's arrays in the file, by attribute: as in earlier runs, to compare with them.
_ARRAYS = {
    "predicted": "answers",
    "confidence": "confidence",
    "log_likelihood": "log_likelihood",
    "brier": "brier",
}


@dataclass(frozen=True)
class ModelPredictions:
    """One model's predictions for the test images, `(N,)` each.

    Attributes:
        predicted: the class with the largest probability.
        confidence: that probability.
        log_likelihood: the log of the probability of the label.
        brier: the squared distance between the probabilities and the one-hot label.
    """

    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]
    log_likelihood: NDArray[np.float32]
    brier: NDArray[np.float32]

    @classmethod
    def of(cls, log_probabilities: Floats, labels: Labels) -> ModelPredictions:
        """The predictions of log-probabilities `(N, C)`."""
        return cls(
            log_probabilities.argmax(axis=1).astype(np.int32),
            np.exp(log_probabilities.max(axis=1)).astype(np.float32),
            log_probabilities[np.arange(len(labels)), labels].astype(np.float32),
            brier_scores(log_probabilities, labels).astype(np.float32),
        )


@dataclass(frozen=True)
class Predictions:
    """All models' predictions for the test images.

    Attributes:
        labels: `(N,)`.
        models: by name: `student`, `baseline`, `ensemble`, `ensemble_fitted`, `teachers/NAME`.
        vote: the classes that most teachers predict `(N,)`.
        card: `classes`, and `images`, a digest of the test images.
    """

    labels: Labels
    models: Mapping[str, ModelPredictions]
    vote: Labels
    card: Mapping[str, Any]

    def correct(self, model: str) -> NDArray[np.bool_]:
        """Whether a model's predictions are correct `(N,)`."""
        return np.asarray(self.models[model].predicted == self.labels)

    @property
    def teachers(self) -> dict[str, ModelPredictions]:
        """The teachers' predictions by their names."""
        return {
            name.removeprefix(TEACHER): predictions
            for name, predictions in self.models.items()
            if name.startswith(TEACHER)
        }

    def save(self, folder: Path, significance: Sequence[Mapping[str, str]] = ()) -> None:
        """Write them atomically, with the table that compares the student."""
        arrays = {"labels": self.labels.astype(np.int32), "vote": self.vote.astype(np.int32)}
        for name, predictions in self.models.items():
            for attribute, array in _ARRAYS.items():
                arrays[f"{name}.{array}"] = getattr(predictions, attribute)
        with atomic_folder(folder) as temporary:
            path = temporary / "predictions.safetensors"
            with write_errors(path, SafetensorError):
                save_file(arrays, path)
            card = {**self.card, "models": list(self.models), "sha256": sha256(path)}
            write_sealed(temporary / "predictions.json", card)
            write_sealed(temporary / SIGNIFICANCE.name, {"rows": list(significance)})

    @classmethod
    def load(cls, folder: Path) -> Predictions:
        """Read what `save` wrote.

        Raises:
            UserError: if it is missing, damaged, or from another version.
        """
        path = folder / "predictions.safetensors"
        card = read_sealed(folder / "predictions.json", FIX)
        check_file(path, card.get("sha256"), FIX)
        try:
            arrays = load_file(path)
            models = {
                name: ModelPredictions(
                    **{attr: arrays[f"{name}.{array}"] for attr, array in _ARRAYS.items()}
                )
                for name in card["models"]
            }
            return cls(arrays["labels"], models, arrays["vote"], card)
        except (KeyError, SafetensorError) as error:
            raise UserError(f"{path} is from another version ({error}); fix: {FIX}") from None
