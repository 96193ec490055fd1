"""Views: an augmented image as a pure function of (seed, image, view index).

All draws come from a counter-based hash instead of a generator's state, so the same view can be
rebuilt by any process, in any batch and order, on any device. Cached teacher outputs are therefore
exact: teacher and student must see the same view (Beyer et al., CVPR 2022). That holds for mixed
images, too: which image is mixed in, and with which share, is such a function.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from meal.core import seeds
from meal.core.digests import fingerprint
from meal.core.errors import UserError
from meal.views import augment, crops, mixing
from meal.views.augment import Erasing, RandAugment
from meal.views.crops import Crops, PaddedCrops, Parameters, ResizedCrops
from meal.views.mixing import Mixing
from meal.views.settings import ViewsSlice, count_crops

VERSION = 1  # part of every cache's fingerprint: raise it when the pixels of a view change

_CODE = (Path(__file__), *(Path(str(each.__file__)) for each in (augment, crops, mixing, seeds)))


@dataclass(frozen=True)
class ViewFamily:
    """All views that one configuration can give: crops, which are then augmented and mixed.

    Attributes:
        crops: the part of the image that is shown.
        randaugment: operations on colours and geometry.
        erasing: a rectangle that is painted over.
        mixing: another image that is mixed in.
    """

    crops: Crops
    randaugment: RandAugment = field(default_factory=RandAugment)
    erasing: Erasing = field(default_factory=Erasing)
    mixing: Mixing = field(default_factory=Mixing)

    @property
    def identity(self) -> dict[str, Any]:
        """What identifies these views: equal values mean equal views."""
        parts = (self.randaugment, self.erasing, self.mixing)
        used = {key: value for part in parts for key, value in part.identity.items()}
        return {"version": VERSION, **self.crops.identity, **used}

    def pixels(
        self,
        source: Tensor,
        places: Tensor,
        rows: Tensor,
        view: int,
        parameters: Parameters,
        size: int,
    ) -> Tensor:
        """Pixels `(B, size, size, C)`, from 0 to 255, of a view before it is mixed.

        Args:
            source: what `crops.source` made of the images.
            places: where the images are in `source`, `(B,)`.
            rows: the numbers of the images, `(B,)`, on the CPU.
            view: the number of the view.
            parameters: of the crops, each `(B,)`.
            size: side length in pixels.
        """
        pixels = self.crops.take(source, places, parameters, size)
        return self.erasing(self.randaugment(pixels, rows, view), rows, view)


def views_digest() -> str:
    """A digest of the code that turns images into views, without comments and docstrings."""
    return fingerprint([_code(file) for file in _CODE])


def _code(file: Path) -> str:
    tree = ast.parse(file.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return ast.unparse(tree)


def view_family(config: ViewsSlice) -> ViewFamily:
    """The family that a slice describes."""
    identity = {"version": VERSION, **config.model_dump()}
    return family_of(identity)


def family_of(identity: Mapping[str, Any]) -> ViewFamily:
    """The family that an identity stands for.

    Raises:
        UserError: if another version made these views.
    """
    if identity.get("version") != VERSION:
        raise UserError(
            f"version {identity.get('version')} of the views: this code makes version {VERSION}"
        )
    seed, flip = identity["seed"], identity["flip"]
    shown: Crops
    if identity["crop"] == "resized":
        low, high = identity["scale"]
        shown = ResizedCrops(seed, low, high, flip)
    else:
        padding = identity["crop_padding"]
        shown = PaddedCrops(seed, padding, flip, count_crops(padding, flip))
    return ViewFamily(
        shown,
        RandAugment(seed, identity.get("randaugment", 0), identity.get("magnitude", 0)),
        Erasing(seed, identity.get("erase", 0.0)),
        Mixing(seed, identity.get("mixup", 0.0), identity.get("cutmix", 0.0)),
    )
