"""The schema of params.yaml: checks every key and value, and cuts it into one slice per stage.

A stage reads its slice alone, so that a parameter re-runs only the stages it concerns.
This module imports neither torch nor numpy: `configure` must start at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

RESERVED = "mean"  # the ensemble's folder of that name


def _name(value: str) -> str:
    """Names become names of files and of DVC stages."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", value) or value == RESERVED:
        raise ValueError(
            f"a name is 1 to 64 letters, digits, '-' and '_', and not {RESERVED!r}, which is taken"
        )
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise ValueError("allowed: auto, cpu, cuda, cuda:N")
    return value


def _no_bool(value: object) -> object:
    """YAML's `yes` and `true` would otherwise pass as the number 1."""
    if isinstance(value, bool):
        raise ValueError("a number is expected, not a truth value")
    return value


def _scale(value: tuple[float, float]) -> tuple[float, float]:
    """Shares of an image's area, the smaller first."""
    if not value[0] <= value[1] <= 1:
        raise ValueError("two shares of the area are expected, the smaller first, at most 1")
    return value


def _off(value: object) -> object:
    """YAML 1.1 reads a bare `off` as false; params.yaml may write it without quotes."""
    return "off" if value is False else value


Name = Annotated[str, AfterValidator(_name)]
Positive = Annotated[float, BeforeValidator(_no_bool), Field(gt=0)]
NonNegative = Annotated[float, BeforeValidator(_no_bool), Field(ge=0)]
Fraction = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, lt=1)]
Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=1)]
Index = Annotated[int, BeforeValidator(_no_bool), Field(ge=0)]
Scale = Annotated[tuple[Positive, Positive], AfterValidator(_scale)]
Seed = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, lt=2**63)]

Crop = Literal["padded", "resized"]
Precision = Literal["float32", "bfloat16"]
Similarity = Literal["ce", "kl", "l1", "l2", "l1_soft", "l2_soft"]
Adversarial = Annotated[
    Literal["off", "minimax", "non_saturating", "cooperative"], BeforeValidator(_off)
]
Selection = Literal["random", "mean", "random_per_image"]


class Section(BaseModel):
    """A part of params.yaml: unknown keys, infinities and NaN are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Network(Section):
    """What a name under `networks` stands for."""

    arch: str
    width: Positive = 1.0
    seed: Seed = 0


class Data(Section):
    """How the images are prepared and split."""

    root: str | None = None
    image_size: Annotated[int, BeforeValidator(_no_bool), Field(ge=16, le=64)] | None = None
    validation_fraction: Annotated[float, BeforeValidator(_no_bool), Field(gt=0, lt=1)] = 0.1
    split_seed: Seed = 0


class Views(Section):
    """The augmented forms of a training image. `count` is how many of them teachers answer."""

    seed: Seed = 0
    count: Count | Literal["all"] = 8
    crop: Crop = "padded"
    crop_padding: Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=16)] = 4
    scale: Scale = (0.35, 1.0)
    flip: bool | Literal["auto"] = "auto"

    def resolve(self, flip: bool) -> tuple[ViewsSlice, int]:
        """The family of views and how many of them teachers answer, nothing left to choose.

        Args:
            flip: whether the dataset's images may be mirrored, for `flip: auto`.
        """
        family = ViewsSlice(
            seed=self.seed,
            crop=self.crop,
            crop_padding=self.crop_padding,
            scale=self.scale,
            flip=flip if self.flip == "auto" else self.flip,
        )
        if self.crop == "resized":
            if self.count == "all":
                raise ValueError("views.count='all': crop: resized has no end; give a number")
            return family, self.count
        size = padded_crop_count(self.crop_padding, family.flip)
        if self.count != "all" and self.count > size:
            raise ValueError(
                f"views.count={self.count}: crop_padding {self.crop_padding} and flip "
                f"{family.flip} give {size} different views; allowed: 1 to {size}, or all"
            )
        return family, size if self.count == "all" else self.count


class ViewsSlice(Section):
    """A family of views with nothing left to resolve."""

    seed: Seed
    crop: Crop = "padded"
    crop_padding: int
    scale: Scale = (0.35, 1.0)
    flip: bool


def padded_crop_count(crop_padding: int, flip: bool) -> int:
    """How many different padded crops an image has: 162 with padding 4 and flips."""
    return (2 * crop_padding + 1) ** 2 * (2 if flip else 1)


class Schedule(Section):
    """A learning rate over the epochs.

    `cosine` falls to zero; `step` multiplies by `lr_gamma` at each of `milestones` (epochs, counted
    from 0); `constant` stays. `warmup_epochs` rises linearly to the full rate first.
    """

    schedule: Literal["cosine", "step", "constant"] = "cosine"
    milestones: list[Count] = []
    lr_gamma: Positive = 0.1
    warmup_epochs: NonNegative = 0.0


class Optimisation(Schedule):
    """SGD with Nesterov momentum, as in the paper's CIFAR settings."""

    lr: Positive
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: NonNegative = 0.0

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Optimisation:
        if self.nesterov and self.momentum == 0:
            raise ValueError("momentum=0: nesterov: true needs momentum above 0")
        return self


class Training(Optimisation):
    """One run of the training loop. `batch_size` counts images."""

    epochs: Count
    batch_size: Annotated[int, BeforeValidator(_no_bool), Field(ge=2)]
    precision: Precision = "float32"


class Weights(Section):
    """Weights of the parts of a loss: one for the logits; one for all blocks, or one per block."""

    logits: NonNegative = 1.0
    blocks: NonNegative | list[NonNegative] = 1.0


class SimilarityChoice(Section):
    """Which similarity loss compares the logits, and which the blocks."""

    logits: Similarity = "ce"
    blocks: Similarity = "l2"


class Method(Section):
    """The MEAL objective (AAAI 2019, section 3)."""

    selection: Selection = "random"
    similarity: SimilarityChoice = SimilarityChoice()
    temperature: Positive = 1.0
    alpha: NonNegative = 1.0
    gamma: Weights = Weights()
    blocks: list[Count] = [1, 2, 3]
    norm: Literal["standardise", "none"] = "standardise"
    adversarial: Adversarial = "minimax"
    beta: NonNegative = 1.0
    eta: Weights = Weights()
    discriminator: Optimisation
    label_weight: NonNegative = 0.0

    @model_validator(mode="after")
    def _blocks_fit_weights(self) -> Method:
        if self.norm == "none" and self.selection == "mean" and self.blocks:
            raise ValueError(
                "norm='none': the blocks of selection: mean are standardised; "
                "allowed: norm: standardise, or blocks: []"
            )
        gamma = self.gamma.blocks
        of_blocks = self.blocks and (any(gamma) if isinstance(gamma, list) else gamma > 0)
        learns = self.alpha and (self.gamma.logits or of_blocks)
        if not learns and not self.label_weight and self.adversarial == "off":
            raise ValueError(
                "gamma: every weight is 0, adversarial: off and label_weight: 0 leave the student "
                "nothing to learn; raise one"
            )
        if len(set(self.blocks)) != len(self.blocks):
            raise ValueError(f"blocks={self.blocks}: a block is repeated; name each once")
        for name, weights in (("gamma", self.gamma), ("eta", self.eta)):
            if isinstance(weights.blocks, list) and len(weights.blocks) != len(self.blocks):
                raise ValueError(
                    f"{name}.blocks={weights.blocks}: give one number, or one for each of the "
                    f"{len(self.blocks)} blocks in use"
                )
        return self


class Distill(Training, Method):
    """How the student learns: its budget, which the baseline shares, and the method."""

    seed: Seed = 0


class Cache(Section):
    """How teachers' answers are stored. `blocks`: into how many blocks a network is cut."""

    enabled: bool = True
    top_k: Count | None = None
    dtype: Literal["float16", "float32"] = "float16"
    blocks: Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=8)] = 3


class Runtime(Section):
    """What changes speed and nothing else; part of no slice, so that it re-runs nothing."""

    device: Annotated[str, AfterValidator(_device)] = "auto"
    deterministic: bool = True


class Params(Section):
    """The whole of params.yaml."""

    dataset: str
    student: Name
    teachers: Annotated[list[Name], Field(min_length=1)]
    networks: Annotated[dict[Name, Network], Field(min_length=1)]
    data: Data = Data()
    views: Views = Views()
    teaching: Training
    cache: Cache = Cache()
    distill: Distill
    runtime: Runtime = Runtime()

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
            raise ValueError(f"teachers={self.teachers}: {repeated[0]} is repeated; name each once")
        if self.cache.top_k is not None:
            if self.distill.similarity.logits in ("l1", "l2"):
                raise ValueError(
                    f"distill.similarity.logits={self.distill.similarity.logits!r}: cache.top_k "
                    "keeps no raw logits; allowed: ce, kl, l1_soft, l2_soft, or cache.top_k: null"
                )
            if not self.cache.enabled:
                raise ValueError(
                    f"cache.top_k={self.cache.top_k}: there is nothing to cut with "
                    "cache.enabled: false; allowed: null"
                )
        missing = [block for block in self.distill.blocks if block > self.cache.blocks]
        if missing:
            raise ValueError(
                f"distill.blocks={self.distill.blocks}: cache.blocks is {self.cache.blocks}; "
                f"allowed: blocks from 1 to {self.cache.blocks}, or []"
            )
        return self


class PrepareSlice(Section):
    """What `prepare` reads."""

    dataset: str
    data: Data


class SupervisedSlice(Section):
    """What `teacher@NAME` and `baseline` read."""

    name: str
    network: Network
    views: ViewsSlice
    training: Training


class CacheSlice(Section):
    """What `cache@NAME` reads."""

    name: str
    views: ViewsSlice
    view_count: int
    cache: Cache


class EnsembleSlice(Section):
    """What `ensemble` reads."""

    teachers: list[str]


class DistillSlice(Section):
    """What `distill` reads. `block_count`: into how many blocks the student is cut."""

    name: str
    network: Network
    views: ViewsSlice
    view_count: int
    block_count: int
    distill: Distill


def load_params(path: Path) -> Params:
    """Read and check a params file.

    Raises:
        ValueError: one line per fault, each naming the key, the value and what is allowed.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path.name} cannot be read: {reason}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path.name} holds no keys; start from the one in the repository")
    return parse(Params, raw, source=path.name)


SliceT = TypeVar("SliceT", bound=BaseModel)


def load_slice(model: type[SliceT], path: Path) -> SliceT:
    """Read a slice that `configure` wrote.

    Raises:
        ValueError: if it is missing or of another version; `dvc repro configure` mends both.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return parse(model, raw, source=str(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{error} (mend it with: dvc repro configure)") from None


def parse(model: type[SliceT], raw: Mapping[str, Any], *, source: str) -> SliceT:
    """Validate `raw` as `model`; faults become one ValueError with a line for each key."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        faults: dict[str, list[str]] = {}
        for fault in error.errors():
            key, message = _explain(model, fault)
            faults.setdefault(key, []).append(message)
        lines = [f"{source}: {key}{' or '.join(says)}" for key, says in faults.items()]
        raise ValueError("\n".join(lines)) from None


def check_choice(source: str, key: str, value: str, allowed: Collection[str]) -> None:
    """Raise the error of an unknown choice, in the form of every other configuration error."""
    if value not in allowed:
        raise ValueError(
            f"{source}: {key}={value!r}: unknown; allowed: {', '.join(sorted(allowed))}"
        )


def resolve(params: Params, *, flip: bool) -> dict[str, Section]:
    """Cut checked parameters into the slices of the stages, keyed by their path.

    Args:
        params: the checked parameters.
        flip: whether the dataset's images may be mirrored, for `views.flip: auto`.
    """
    views, view_count = params.views.resolve(flip)
    student = params.networks[params.student]
    # The baseline gets the student's budget, so equal steps, and the course of its rate.
    budget = {name: getattr(params.distill, name) for name in ("epochs", "batch_size")}
    budget |= {name: getattr(params.distill, name) for name in Schedule.model_fields}
    slices: dict[str, Section] = {
        "prepare": PrepareSlice(dataset=params.dataset, data=params.data),
        "ensemble": EnsembleSlice(teachers=params.teachers),
        "baseline": SupervisedSlice(
            name=params.student,
            network=student,
            views=views,
            training=params.teaching.model_copy(update=budget),
        ),
        "distill": DistillSlice(
            name=params.student,
            network=student.model_copy(update={"seed": 0}),  # the student's is distill.seed
            views=views,
            view_count=view_count,
            block_count=params.cache.blocks,
            distill=params.distill,
        ),
    }
    for name in params.teachers:
        slices[f"teachers/{name}"] = SupervisedSlice(
            name=name, network=params.networks[name], views=views, training=params.teaching
        )
        slices[f"caches/{name}"] = CacheSlice(
            name=name, views=views, view_count=view_count, cache=params.cache
        )
    return slices


def _explain(model: type[BaseModel], fault: Any) -> tuple[str, str]:
    """A fault as its key with the value, and what is allowed."""
    # Pydantic adds the tried member of a union to the path; users never wrote it.
    location = [part for part in fault["loc"] if not (isinstance(part, str) and _is_tag(part))]
    key = ".".join(str(part) for part in location)
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return key, f": unknown key; allowed here: {', '.join(_siblings(model, location))}"
    if fault["type"] == "missing":
        return key, ": missing"
    if isinstance(fault["input"], dict):  # a rule on several keys names them itself
        prefix = f"{key}." if key and fault["type"] == "value_error" else f"{key}: " if key else ""
        return prefix, message
    value = repr(fault["input"])
    shown = value if len(value) <= 60 else value[:57] + "..."
    return f"{key}={shown}: ", message[0].lower() + message[1:]


def _is_tag(part: str) -> bool:
    return part in {"bool", "float"} or "[" in part


def _siblings(model: type[BaseModel], location: list[int | str]) -> list[str]:
    """The keys that are allowed where an unknown one stood."""
    current: Any = model
    for part in location[:-1]:
        field = getattr(current, "model_fields", {}).get(part)
        # What is not a field is an entry of a dictionary of sections.
        current = field.annotation if field is not None else current.__args__[1]
    return list(current.model_fields)
