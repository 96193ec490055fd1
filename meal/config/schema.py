"""The schema of params.yaml: every key, what it may be, and which values fit together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from meal.config.fields import (
    Adversarial,
    Count,
    Crop,
    Device,
    Fraction,
    ImageSize,
    Integer,
    Name,
    NonNegative,
    Number,
    Positive,
    Precision,
    Scale,
    Seed,
    Selection,
    Sha256,
    Similarity,
)


class Section(BaseModel):
    """A part of params.yaml: unknown keys, infinities and NaN are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class WeightsFile(Section):
    """Weights from elsewhere: a file or an https address, always with the file's SHA-256."""

    file: str | None = None
    url: str | None = None
    sha256: Sha256

    @model_validator(mode="after")
    def _one_place(self) -> WeightsFile:
        if (self.file is None) == (self.url is None):
            raise ValueError("file: give a file or a url, one of them")
        if self.url is not None and not self.url.startswith("https://"):
            raise ValueError(f"url={self.url!r}: an address that begins with https:// is expected")
        return self


class NetworkInput(Section):
    """What a network was trained to see, where that is not what the training split gives."""

    size: Annotated[Integer, Field(ge=8, le=1024)] | None = None
    mean: list[float] | None = None
    deviation: list[Positive] | None = None

    @model_validator(mode="after")
    def _by_channel(self) -> NetworkInput:
        given = [values for values in (self.mean, self.deviation) if values is not None]
        if len(given) == 1 or any(len(values) not in (1, 3) for values in given):
            raise ValueError("mean: it comes with a deviation, one or three numbers each")
        if given and len(given[0]) != len(given[1]):
            raise ValueError("mean: as many numbers as deviation has are expected")
        return self


class Network(Section):
    """What a name under `networks` stands for.

    `options` are the builder's keyword arguments, `blocks` the sub-modules that are compared,
    `weights` what a teacher starts from instead of being trained, `input` what it wants to see.
    """

    arch: str
    width: Positive = 1.0
    seed: Seed = 0
    options: dict[str, Any] = {}
    blocks: list[str] = []
    weights: Literal["pretrained"] | WeightsFile | None = None
    input: NetworkInput | None = None


class Data(Section):
    """How the images are prepared and split.

    `source_size` is what views are cut from, where that is larger than `image_size`.
    """

    root: Annotated[str, Field(min_length=1)] | None = None
    image_size: ImageSize | None = None
    source_size: ImageSize | None = None
    store: Literal["auto", "array", "index"] = "auto"
    skip_broken: bool = False
    test_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.2
    validation_fraction: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    split_seed: Seed = 0

    @model_validator(mode="after")
    def _sizes_fit(self) -> Data:
        if self.source_size is not None:
            size = self.image_size
            if size is None or not size <= self.source_size <= 2 * size:
                raise ValueError(
                    f"source_size={self.source_size}: it goes with an image_size, and is as large "
                    "or up to twice as large; or null"
                )
        return self


class Views(Section):
    """The augmented forms of a training image. `count` is how many of them teachers answer."""

    seed: Seed = 0
    count: Count | Literal["all"] = 8
    crop: Crop = "padded"
    crop_padding: Annotated[Integer, Field(ge=0, le=16)] = 4
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
    batch_size: Annotated[Integer, Field(ge=2)]
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
    standardise_logits: bool = False
    mixup: NonNegative = 0.0
    ema: Fraction = 0.0

    @model_validator(mode="after")
    def _blocks_fit_weights(self) -> Method:
        if self.norm == "none" and self.selection == "mean" and self.blocks:
            raise ValueError(
                "norm='none': the blocks of selection: mean are standardised; "
                "allowed: norm: standardise, or blocks: []"
            )
        similar = self.alpha and self._any(self.gamma)
        adversarial = self.adversarial != "off" and self.beta and self._any(self.eta)
        if not similar and not adversarial and not self.label_weight:
            raise ValueError(
                "gamma: every weight of the loss is 0 (alpha times gamma, beta times eta, "
                "label_weight): the student has nothing to learn; raise one"
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

    def _any(self, weights: Weights) -> bool:
        """Whether some output in use has a weight."""
        blocks = weights.blocks if isinstance(weights.blocks, list) else [weights.blocks]
        return bool(weights.logits or (self.blocks and any(blocks)))


class Distill(Training, Method):
    """How the student learns: its budget, which the baseline shares, and the method.

    `init`: weights that it starts from, as MEAL V2 starts from a student trained on labels.
    """

    seed: Seed = 0
    init: WeightsFile | None = None


class Cache(Section):
    """How teachers' answers are stored.

    `blocks`: into how many blocks a network is cut; `align`: how a block becomes values.
    """

    enabled: bool = True
    top_k: Count | None = None
    dtype: Literal["float16", "float32"] = "float16"
    blocks: Annotated[Integer, Field(ge=0, le=8)] = 3
    align: Literal["spatial", "projected"] = "spatial"


class EnsembleSettings(Section):
    """How the members' probabilities are weighted: equally, or fitted on validation."""

    weights: Literal["uniform", "fitted"] = "uniform"


class Runtime(Section):
    """What changes speed and nothing else; part of no slice, so that it re-runs nothing."""

    device: Device = "auto"
    workers: Annotated[Integer, Field(ge=0, le=256)] | Literal["auto"] = "auto"
    deterministic: bool = True
    checkpoint_minutes: Positive = 10.0


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
    ensemble: EnsembleSettings = EnsembleSettings()
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
        if self.networks[self.student].weights and self.student not in self.teachers:
            raise ValueError(
                f"networks.{self.student}.weights: weights are a teacher's, and {self.student} is "
                "the student; it starts from distill.init"
            )
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
        if self.data.source_size is not None and self.views.crop == "padded":
            raise ValueError(
                f"data.source_size={self.data.source_size}: padded crops are as large as the "
                "image; allowed: views.crop: resized, or null"
            )
        if self.distill.mixup and self.cache.enabled:
            raise ValueError(
                f"distill.mixup={self.distill.mixup:g}: teachers must see the mixed images; "
                "allowed: 0, or cache.enabled: false"
            )
        own_maps = self.cache.align == "projected" and self.distill.blocks
        if own_maps and self.distill.selection != "random":
            raise ValueError(
                "cache.align='projected': every teacher has a map of its own, which "
                f"selection: {self.distill.selection} cannot share; allowed: selection: random, "
                "or distill.blocks: []"
            )
        missing = [block for block in self.distill.blocks if block > self.cache.blocks]
        if missing:
            raise ValueError(
                f"distill.blocks={self.distill.blocks}: cache.blocks is {self.cache.blocks}; "
                f"allowed: blocks from 1 to {self.cache.blocks}, or []"
            )
        return self
