"""An exported student as a PyTorch module; `meal.load` opens it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from meal.core.errors import UserError
from meal.core.settings import parse
from meal.data.decoding import decode_image, read_image
from meal.models.architectures import OWN, check, own_digest
from meal.models.checkpoint import load_state
from meal.models.factory import build
from meal.models.settings import Network
from meal.models.spec import NetworkSpec
from meal.predict.card import CARD, FIX, WEIGHTS, Card, Input
from meal.views.pipelines import scale_and_shift

Picture = str | Path | Image.Image | NDArray[np.uint8]


class Student(nn.Module):
    """A network, its classes and its preprocessing.

    Attributes:
        network: from normalised images to logits.
        classes: their names, in the order of the logits.
    """

    _scale: Tensor
    _shift: Tensor

    def __init__(self, network: nn.Module, classes: tuple[str, ...], inputs: Input) -> None:
        super().__init__()
        self.network, self.classes, self._input = network, classes, inputs
        scale, shift = scale_and_shift(inputs.mean, inputs.std)
        self.register_buffer("_scale", scale, persistent=False)
        self.register_buffer("_shift", shift, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """From images `(N, C, H, W)`, as `preprocess` returns them, to logits `(N, classes)`."""
        logits: Tensor = self.network(images)
        return logits

    def preprocess(self, image: Picture) -> Tensor:
        """The input `(1, C, H, W)`, float32, for one image, decoded as the pipeline does.

        Args:
            image: a file, a Pillow image, or pixels `(H, W)`, `(H, W, 1)` or `(H, W, 3)`, uint8.
                Only a file gives exactly the pipeline's pixels: a large JPEG is decoded at a
                reduced size.

        Raises:
            UserError: if the file is not a complete image.
        """
        if isinstance(image, (str, Path)):
            try:
                pixels = self._input.pixels(read_image(Path(image)))
            except UserError as error:
                raise UserError(f"{image}: {error}") from None
        else:
            pixels = self._input.of(decode_image(_opened(image), self._input.side))
        return self.normalise(torch.from_numpy(pixels[None]).to(self._scale.device))

    def normalise(self, pixels: Tensor) -> Tensor:
        """From pixels `(N, H, W, C)`, 0 to 255, to float32 images `(N, C, H, W)`."""
        return (pixels.float() * self._scale + self._shift).permute(0, 3, 1, 2)


def load(folder: str | Path) -> Student:
    """An exported student in eval mode.

    The folder is read as data: no code in it runs. For a network of your own, the code is that of
    `networks/` in the current folder, if it is the code that the student was made with.

    Raises:
        UserError: if a file is missing or damaged, or the student's own code is not there.
    """
    folder = Path(folder)
    card = Card.read(folder)
    path = card.file(WEIGHTS)
    try:
        spec, state = NetworkSpec.read(card.content["network"]), load_file(path)
    except (KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"{folder} holds no student of this version ({type(error).__name__}: {error}); "
            f"fix: {FIX}"
        ) from None
    # The card may come from a stranger: check its names and options like those of params.yaml.
    if Path(OWN).resolve().is_relative_to(folder.resolve()) and Path(OWN).exists():
        raise UserError(f"{folder} holds code in {OWN}/: change to another folder to load it")
    if own_digest(spec.arch) != spec.source:  # before anything is imported
        raise UserError(f"{spec.arch} is not the code that {folder} was made with")
    named = {"arch": spec.arch, "width": spec.width, "options": dict(spec.options)}
    check(parse(Network, named, source=str(folder / CARD)))
    network = build(spec)
    load_state(network, state, str(folder))
    return Student(network, card.classes, card.input).eval()


def _opened(image: Image.Image | NDArray[np.uint8]) -> Image.Image:
    """An image as Pillow holds it."""
    if isinstance(image, Image.Image):
        return image
    colours = image.shape[2:] in ((), (1,), (3,)) and image.ndim in (2, 3)
    if image.dtype != np.uint8 or not colours or not image.size:
        raise UserError(
            f"an array of {image.dtype} and shape {image.shape} is no image; expected: uint8, "
            "(H, W), (H, W, 1) or (H, W, 3)"
        )
    grey = image.ndim == 3 and image.shape[2] == 1
    return Image.fromarray(image[..., 0] if grey else image)
