"""Mixup and CutMix: another image in a view, drawn by (seed, image, view).

The other image is shown in its own view of the same number. So a teacher's answer to a mixed image
can be stored like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from meal.core.seeds import hash_integers, uniform
from meal.views.augment import box_mask

_MIX = 3  # in the hash: each part has draws of its own
_SHARES = 256  # shares are multiples of 1/256: no platform's rounding can change a view


class Mix(NamedTuple):
    """How images `(B,)` are mixed.

    Attributes:
        partners: the numbers of the other images, `(B,)`.
        share: of the image itself, float32 `(B,)`.
        box: the pixels `(B, H, W)` that the other image takes; none for mixup.
        cut: whether it is CutMix, `(B,)`.
    """

    partners: Tensor
    share: Tensor
    box: Tensor
    cut: Tensor

    def images(self, own: Tensor, others: Tensor) -> Tensor:
        """Mix pixels `(B, H, W, C)` with those of the partners; the result is float32."""
        device = own.device
        share, box, cut = (
            each.to(device, non_blocking=True) for each in (self.share, self.box, self.cut)
        )
        own, others = own.float(), others.float()
        blended = others.lerp(own, share[:, None, None, None])
        pasted = torch.where(box[..., None], others, own)
        return torch.where(cut[:, None, None, None], pasted, blended)

    def labels(self, labels: Tensor, rows: Tensor, classes: int) -> Tensor:
        """Mix labels likewise.

        Args:
            labels: of all images, `(N,)`; -1 for those without a label.
            rows: the numbers of the images, `(B,)`.
            classes: the number of classes.

        Returns:
            Probabilities `(B, classes)`; zeros for images without a label.
        """
        device = labels.device
        own, others = (labels[each.to(device, non_blocking=True)] for each in (rows, self.partners))
        share = self.share.to(device, non_blocking=True)[:, None]
        first, second = (F.one_hot(each.clamp(min=0), classes).float() for each in (own, others))
        return second.lerp(first, share) * (own >= 0)[:, None]


class Kinds:
    """Images with a label and images without: an image is mixed with one of its kind.

    So every label that training uses is kept, and teachers see only labelled images.
    """

    def __init__(self, labels: Tensor) -> None:
        """Take the labels of all images, `(N,)`; -1 for those without a label."""
        known = (labels >= 0).cpu()
        self._known = known
        self._members = [(known == kind).nonzero()[:, 0] for kind in (False, True)]

    def partners(self, rows: Tensor, draws: Tensor) -> Tensor:
        """Images of the same kind as `rows` `(B,)`, by draws in [0, 1)."""
        known, chosen = self._known[rows], torch.empty_like(rows)
        for kind, members in enumerate(self._members):
            mine = known == bool(kind)
            chosen[mine] = members[(draws[mine] * len(members)).long()]
        return chosen


@dataclass(frozen=True)
class Mixing:
    """Mixup (Zhang et al., ICLR 2018), CutMix (Yun et al., ICCV 2019), or either by chance.

    Attributes:
        seed: of the views.
        mixup, cutmix: the parameter of the Beta distribution of shares; 0 for none.
    """

    seed: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __bool__(self) -> bool:
        """Whether images are mixed."""
        return bool(self.mixup or self.cutmix)

    @property
    def identity(self) -> dict[str, Any]:
        """What identifies the mixtures; empty if there are none."""
        return {"mixup": self.mixup, "cutmix": self.cutmix} if self else {}

    def draw(self, rows: Tensor, view: int, kinds: Kinds, side: int) -> Mix:
        """How a view of images `(B,)`, on the CPU, of `side` pixels is mixed."""
        key = hash_integers(self.seed, rows, view, _MIX)
        cut = uniform(key, 1) < (0.5 if self.mixup else 1.0)
        if not self.cutmix:
            cut = torch.zeros_like(cut)
        drawn = uniform(key, 2)
        share = torch.where(cut, _beta(drawn, self.cutmix), _beta(drawn, self.mixup))
        length = ((1 - share).sqrt() * side).round()
        centres = ((uniform(key, stream) * side).floor() for stream in (3, 4))
        (top, bottom), (left, right) = (
            ((c - (length / 2).floor()).clamp(0, side), (c + (length / 2).ceil()).clamp(0, side))
            for c in centres
        )
        box = box_mask(top, left, bottom - top, right - left, side) & cut[:, None, None]
        kept = 1 - box.double().mean(dim=(1, 2))
        share = torch.where(cut, kept, share).float()
        return Mix(kinds.partners(rows, uniform(key, 5)), share, box, cut)


def _beta(draws: Tensor, alpha: float) -> Tensor:
    """Values from Beta(alpha, alpha) for draws in [0, 1), by the inverse of its distribution."""
    if not alpha:
        return torch.ones_like(draws)
    from scipy.special import betaincinv

    values = torch.from_numpy(betaincinv(alpha, alpha, draws.numpy()))
    return (values * _SHARES).round() / _SHARES
