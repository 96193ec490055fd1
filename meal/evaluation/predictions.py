"""What every model answers to every test image: small enough to keep, enough to compare models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from meal.evaluation.metrics import brier_scores
from meal.files import atomic_folder, check_file, disk_errors, read_sealed, sha256, write_sealed
from meal.metrics import Floats, Labels

STUDENT, BASELINE, ENSEMBLE, FITTED, VOTE = (
    "student", "baseline", "ensemble", "ensemble_fitted", "vote",
)  # fmt: skip
TEACHER = "teachers/"  # before a teacher's name


@dataclass(frozen=True)
class ModelAnswers:
    """What one model says to the test images; each `(N,)`.

    Attributes:
        answers: the class it names.
        confidence: the probability that it gives that class.
        log_likelihood: the log of the probability that it gives the label.
        brier: the squared distance of its probabilities to the label.
    """

    answers: NDArray[np.int32]
    confidence: NDArray[np.float32]
    log_likelihood: NDArray[np.float32]
    brier: NDArray[np.float32]

    @classmethod
    def of(cls, log_probabilities: Floats, labels: Labels) -> ModelAnswers:
        """Of log-probabilities `(N, C)`."""
        answers = log_probabilities.argmax(axis=1)
        return cls(
            answers.astype(np.int32),
            np.exp(log_probabilities.max(axis=1)).astype(np.float32),
            log_probabilities[np.arange(len(labels)), labels].astype(np.float32),
            brier_scores(log_probabilities, labels).astype(np.float32),
        )


@dataclass(frozen=True)
class Predictions:
    """All models' answers to the test images.

    Attributes:
        labels: `(N,)`.
        models: by name: `student`, `baseline`, `ensemble`, `ensemble_fitted`, `teachers/NAME`.
        vote: the answers of the members' majority `(N,)`.
        card: `classes`, and `images`, a digest of the test images.
    """

    labels: Labels
    models: Mapping[str, ModelAnswers]
    vote: Labels
    card: Mapping[str, Any]

    def correct(self, model: str) -> NDArray[np.bool_]:
        """Whether a model's answers are right `(N,)`."""
        return np.asarray(self.models[model].answers == self.labels)

    @property
    def teachers(self) -> dict[str, ModelAnswers]:
        """The teachers' answers by their names."""
        return {
            name.removeprefix(TEACHER): answers
            for name, answers in self.models.items()
            if name.startswith(TEACHER)
        }

    def save(self, folder: Path) -> None:
        """Write them, whole or not at all."""
        arrays = {"labels": self.labels.astype(np.int32), "vote": self.vote.astype(np.int32)}
        for name, answers in self.models.items():
            arrays |= {f"{name}.{field}": array for field, array in vars(answers).items()}
        with atomic_folder(folder) as temporary:
            path = temporary / "predictions.safetensors"
            with disk_errors(path, SafetensorError):
                save_file(arrays, path)
            card = {**self.card, "models": list(self.models), "sha256": sha256(path)}
            write_sealed(temporary / "predictions.json", card)

    @classmethod
    def load(cls, folder: Path) -> Predictions:
        """Read what `save` wrote.

        Raises:
            ValueError: if it is missing, damaged, or of another version.
        """
        mend = "mend it with: dvc repro evaluate"
        path = folder / "predictions.safetensors"
        try:
            card = read_sealed(folder / "predictions.json")
            check_file(path, card.get("sha256"))
        except ValueError as error:
            raise ValueError(f"{error}; {mend}") from None
        fields = ModelAnswers.__dataclass_fields__
        try:
            arrays = load_file(path)
            models = {
                name: ModelAnswers(**{field: arrays[f"{name}.{field}"] for field in fields})
                for name in card["models"]
            }
            return cls(arrays["labels"], models, arrays["vote"], card)
        except (KeyError, SafetensorError) as error:
            raise ValueError(f"{path} is of another version ({error}); {mend}") from None
