"""`distill` in params.yaml, and what the stage `distill` reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from meal.core.fields import Count, NonNegative, Number, Seed, unset
from meal.core.settings import Section
from meal.models.settings import NetworkSlice, WeightsFile
from meal.training.settings import Optimisation, Training
from meal.views.settings import ViewsSlice


def _off(value: object) -> object:
    """Accept `false` for `off`."""
    return "off" if value is False else value


Similarity = Literal["ce", "kl", "l1", "l2", "l1_soft", "l2_soft"]
BlockSimilarity = Literal[Similarity, "relations"]
Adversarial = Annotated[
    Literal["off", "minimax", "non_saturating", "cooperative"], BeforeValidator(_off)
]
Selection = Literal["random", "mean", "random_per_image"]


class Weights(Section):
    """Weights of the parts of a loss: one for the logits, one for all blocks or one per block."""

    logits: NonNegative = 1.0
    blocks: NonNegative | list[NonNegative] = 1.0

    def of_blocks(self, blocks: list[int]) -> dict[int, float]:
        """The weight of each of `blocks`."""
        weights = self.blocks if isinstance(self.blocks, list) else [self.blocks] * len(blocks)
        return dict(zip(blocks, weights, strict=True))


class SimilarityChoice(Section):
    """The similarity loss of the logits, and that of the blocks."""

    logits: Similarity = "ce"
    blocks: BlockSimilarity = "l2"


class Method(Section):
    """The MEAL objective (AAAI 2019, section 3), and the images that it runs over.

    `targets` is what the logits are compared with: the teacher's for the same view, or the mean of
    its logits over all views of the image (Radosavovic et al., CVPR 2018). `pool` is the images
    that the student sees: all, or only those with or without a label; `labelled_share` is the share
    of labelled images in a batch, None for as many as chance gives.
    """

    selection: Selection = "random"
    targets: Literal["view", "image"] = "view"
    similarity: SimilarityChoice = SimilarityChoice()
    temperature: Annotated[Number, Field(ge=0.01, le=1000)] = 1.0
    alpha: NonNegative = 1.0
    gamma: Weights = Weights()
    blocks: list[Count] = [1, 2, 3]
    norm: Literal["standardise", "none"] = "standardise"
    adversarial: Adversarial = "minimax"
    beta: NonNegative = 1.0
    eta: Weights = Weights()
    discriminator: Optimisation
    label_weight: NonNegative = 0.0
    pool: Literal["all", "labelled", "unlabelled"] = "all"
    labelled_share: Annotated[Annotated[Number, Field(gt=0, lt=1)] | None, unset("auto")] = None
    standardise_logits: bool = False

    @model_validator(mode="after")
    def _pool_fits(self) -> Method:
        if self.pool != "all" and self.labelled_share is not None:
            raise ValueError(
                f"labelled_share={self.labelled_share:g}: a batch from pool: {self.pool} is of one "
                "kind; allowed: auto, or pool: all"
            )
        if self.pool == "unlabelled" and self.label_weight:
            raise ValueError(
                f"label_weight={self.label_weight:g}: pool: unlabelled has no labelled image; "
                "allowed: 0, or pool: all"
            )
        return self

    @model_validator(mode="after")
    def _relations_fit(self) -> Method:
        relations = self.similarity.blocks == "relations" and self.blocks
        if relations and self.selection == "random_per_image":
            raise ValueError(
                "similarity.blocks='relations': targets of different teachers have no relation to "
                "each other; allowed: selection: random or mean, or blocks: []"
            )
        return self

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
                "label_weight): the student would learn nothing; raise one"
            )
        if len(set(self.blocks)) != len(self.blocks):
            raise ValueError(f"blocks={self.blocks}: a block is repeated; list each once")
        for name, weights in (("gamma", self.gamma), ("eta", self.eta)):
            if isinstance(weights.blocks, list) and len(weights.blocks) != len(self.blocks):
                raise ValueError(
                    f"{name}.blocks={weights.blocks}: give one number, or one for each of the "
                    f"{len(self.blocks)} blocks in use"
                )
        return self

    def _any(self, weights: Weights) -> bool:
        """Whether any output in use has a weight above 0."""
        blocks = weights.blocks if isinstance(weights.blocks, list) else [weights.blocks]
        return bool(weights.logits or (self.blocks and any(blocks)))


class Distill(Training, Method):
    """How the student learns: its optimisation, which the baseline shares, and the method.

    `init` gives its initial weights; MEAL V2 starts from a student trained on labels.
    """

    seed: Seed = 0
    init: Annotated[WeightsFile | None, unset("none")] = None


class DistillSlice(Section):
    """The student, the cached views, and the method.

    `block_count` is the number of blocks that the student is divided into.
    """

    name: str
    network: NetworkSlice
    views: ViewsSlice
    view_count: int
    alignment: Literal["spatial", "projected"] = "spatial"
    block_count: int
    distill: Distill
