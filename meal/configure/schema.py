"""The schema of params.yaml: its sections, and which of their values fit together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from meal.cache.settings import Cache
from meal.core.fields import Seed
from meal.core.runtime import Runtime
from meal.core.settings import Section, parse, read_yaml
from meal.datasets.settings import Data
from meal.distill.settings import Distill
from meal.models.settings import Network
from meal.training.settings import Training
from meal.views.settings import Augmentation, Views

RESERVED = ("mean", "ensemble", "ensemble_fitted")  # names of the ensembles, among the teachers'


def _name(value: str) -> str:
    """A name must be usable in file names and names of DVC stages."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", value) or value in RESERVED:
        raise ValueError(
            "a name has 1 to 64 letters, digits, '-' and '_', and is not one of "
            + ", ".join(RESERVED)
        )
    return value


Name = Annotated[str, AfterValidator(_name)]


class EnsembleSettings(Section):
    """The weights of the members: equal, fitted on validation, or all on the best one there."""

    weights: Literal["uniform", "fitted", "best"] = "uniform"


class Baseline(Section):
    """The student's network on labels: its seed, and what `distill` does not decide for it.

    It may hold any key of `Training`; the others are those of `distill`.
    """

    model_config = ConfigDict(extra="allow")

    seed: Seed = 0


class ExportSettings(Section):
    """How the student leaves the pipeline.

    `input` is what the ONNX file takes: `uint8`, pixels from 0 to 255, or `float32`, from 0 to 1.
    `int8` adds a quantised file, calibrated on the validation images.
    """

    input: Literal["uint8", "float32"] = "uint8"
    int8: bool = False


class Teaching(Training):
    """How teachers are trained; `views` holds what they see otherwise than the student."""

    views: Annotated[dict[str, Any], Field(default_factory=dict)]


class NamedNetwork(Network):
    """A network, and how it is trained if it is a teacher: any key of `teaching`."""

    training: Annotated[dict[str, Any], Field(default_factory=dict)]

    @model_validator(mode="after")
    def _only_training_is_set(self) -> NamedNetwork:
        if self.training and not self.is_trained:
            raise ValueError(
                f"training={self.training}: its weights are loaded as they are; allowed: with "
                "head: new, or without weights"
            )
        return self


class Params(Section):
    """All of params.yaml. `seed` shifts every other seed but that of the test images."""

    seed: Seed = 0
    dataset: str
    student: Name
    teachers: Annotated[list[Name], Field(min_length=1)]
    networks: Annotated[dict[Name, NamedNetwork], Field(min_length=1)]
    data: Data = Data()
    views: Views = Views()
    teaching: Teaching
    cache: Cache = Cache()
    ensemble: EnsembleSettings = EnsembleSettings()
    distill: Distill
    baseline: Baseline = Baseline()
    export: ExportSettings = ExportSettings()
    runtime: Runtime = Runtime()

    @property
    def baseline_training(self) -> Training:
        """How the baseline is trained: as the student, unless `baseline` says otherwise."""
        return Training.model_validate(_baseline_training(self))

    def teacher_training(self, name: str) -> Teaching | None:
        """How a teacher is trained: as `teaching` says, unless its network says otherwise.

        None if its weights are loaded as they are.
        """
        if not self.networks[name].is_trained:
            return None
        return Teaching.model_validate(_teacher_training(self, name))

    def teacher_views(self, name: str) -> Augmentation:
        """What the views show on which a teacher is trained."""
        return Augmentation.model_validate(_teacher_views(self, name))

    @property
    def all_views(self) -> dict[str, Augmentation]:
        """Everything that views show, by the key in params.yaml that says so."""
        found: dict[str, Augmentation] = {"views": self.views}
        for name in self.teachers:
            own = "views" in self.networks[name].training
            key = f"networks.{name}.training.views" if own else "teaching.views"
            if own or self.teaching.views:
                found[key] = self.teacher_views(name)
        return found

    @model_validator(mode="after")
    def _names_fit(self) -> Params:
        known = ", ".join(self.networks)
        if self.student not in self.networks:
            raise ValueError(f"student={self.student!r}: not one of networks; allowed: {known}")
        for teacher in self.teachers:
            if teacher not in self.networks:
                raise ValueError(f"teachers={teacher!r}: not one of networks; allowed: {known}")
        repeated = sorted({name for name in self.teachers if self.teachers.count(name) > 1})
        if repeated:
            raise ValueError(f"teachers={self.teachers}: {repeated[0]} is repeated; list each once")
        return self

    @model_validator(mode="after")
    def _student_starts_once(self) -> Params:
        if self.student not in self.networks:
            return self
        network = self.networks[self.student]
        if not network.is_trained and self.student not in self.teachers:
            raise ValueError(
                f"networks.{self.student}.weights: only teachers are loaded as they are, and "
                f"{self.student} is the student; add head: new, or use distill.init"
            )
        if network.weights and network.head == "new" and self.distill.init:
            raise ValueError(
                f"distill.init: the student {self.student} already starts from "
                f"networks.{self.student}.weights; allowed: none"
            )
        return self

    @model_validator(mode="after")
    def _top_k_fits(self) -> Params:
        if self.cache.top_k is None:
            return self
        if self.distill.similarity.logits in ("l1", "l2"):
            raise ValueError(
                f"distill.similarity.logits={self.distill.similarity.logits!r}: cache.top_k keeps "
                "no raw logits; allowed: ce, kl, l1_soft, l2_soft, or cache.top_k: all"
            )
        if self.distill.temperature > 1:
            raise ValueError(
                f"cache.top_k={self.cache.top_k}: a temperature above 1 raises the probabilities "
                "that are not stored, so the targets would be distorted; allowed: "
                "distill.temperature: 1, or cache.top_k: all"
            )
        if not self.cache.enabled:
            raise ValueError(
                f"cache.top_k={self.cache.top_k}: cache.enabled: false stores no logits; "
                "allowed: all"
            )
        return self

    @model_validator(mode="after")
    def _targets_fit(self) -> Params:
        if self.distill.targets == "view":
            return self
        if not self.cache.enabled:
            raise ValueError(
                "distill.targets='image': cache.enabled: false keeps no outputs to average; "
                "allowed: view, or cache.enabled: true"
            )
        for name in ("mixup", "cutmix"):
            if getattr(self.views, name):
                raise ValueError(
                    f"distill.targets='image': views.{name}={getattr(self.views, name):g} mixes an "
                    "image with another one in each view, so the views have no common target; "
                    f"allowed: view, or views.{name}: 0"
                )
        return self

    @model_validator(mode="after")
    def _blocks_fit(self) -> Params:
        projected = self.cache.align == "projected" and self.distill.blocks
        if projected and self.distill.selection != "random":
            raise ValueError(
                "cache.align='projected': each teacher has its own map, so selection: "
                f"{self.distill.selection} is impossible; allowed: selection: random, or "
                "distill.blocks: []"
            )
        if self.distill.blocks and self.distill.selection == "mean" and not self.cache.enabled:
            raise ValueError(
                "cache.enabled=false: blocks of selection: mean are standardised with moments that "
                "only a cache has; allowed: cache.enabled: true, another selection, or "
                "distill.blocks: []"
            )
        if any(block > self.cache.blocks for block in self.distill.blocks):
            raise ValueError(
                f"distill.blocks={self.distill.blocks}: cache.blocks is {self.cache.blocks}; "
                f"allowed: blocks from 1 to {self.cache.blocks}, or []"
            )
        return self


def load_params(path: Path) -> Params:
    """Read and check a params file.

    Raises:
        UserError: one line per fault, each naming the key, the value and what is allowed.
    """
    params = parse(Params, read_yaml(path), source=path.name)
    parse(Training, _baseline_training(params), source=path.name, section="baseline.")
    for name in params.networks:
        key = f"networks.{name}.training."
        parse(Teaching, _teacher_training(params, name), source=path.name, section=key)
        own = "views" in params.networks[name].training
        views = f"{key}views." if own else "teaching.views."
        parse(Augmentation, _teacher_views(params, name), source=path.name, section=views)
    return params


def _baseline_training(params: Params) -> dict[str, Any]:
    """As the student, for as long as the student may train."""
    shared = params.distill.model_dump(include=set(Training.model_fields))
    return shared | {"early_stopping": None} | (params.baseline.model_extra or {})


def _teacher_training(params: Params, name: str) -> dict[str, Any]:
    """As `teaching` says, with the network's own values; `views` are merged key by key, too."""
    own = params.networks[name].training
    merged = params.teaching.model_dump() | own
    if isinstance(own.get("views"), dict):
        merged["views"] = params.teaching.views | own["views"]
    return merged


def _teacher_views(params: Params, name: str) -> dict[str, Any]:
    own: dict[str, Any] = _teacher_training(params, name)["views"]
    return params.views.model_dump(include=set(Augmentation.model_fields)) | own
