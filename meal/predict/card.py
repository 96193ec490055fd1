"""`model.json`: what an exported folder holds, and how an image becomes the student's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meal.core.errors import UserError
from meal.core.files import check_file, read_sealed
from meal.data.decoding import Decoded, decode

CARD, WEIGHTS, ONNX, INT8 = "model.json", "model.safetensors", "model.onnx", "model.int8.onnx"
VERSION = 1  # of the folder's format
FIX = "dvc repro export"
Pixels = NDArray[np.uint8]

# The weights of red, green and blue in a grey level: ITU-R BT.601, as in Pillow.
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Input:
    """The pixels that the student sees.

    Attributes:
        side: side length in pixels to which an image is decoded.
        size: side length of its centre, which the network sees.
        channels: 1 or 3.
        mean, std: of values in [0, 1], by channel.
        dtype: of the ONNX file's input `(N, size, size, channels)`: `uint8` from 0 to 255, or
            `float32` from 0 to 1.
    """

    side: int
    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str

    def pixels(self, content: bytes) -> Pixels:
        """The pixels `(size, size, channels)` of an image file, decoded as `prepare` does.

        Raises:
            UserError: if the bytes are not a complete image.
        """
        return self.centre(self._in_channels(decode(content, self.side))[None])[0]

    def centre(self, pixels: Pixels) -> Pixels:
        """From images `(N, side, side, C)` to what the network sees, `(N, size, size, C)`."""
        border = (self.side - self.size) // 2
        stop = border + self.size
        return pixels[:, border:stop, border:stop]

    def _in_channels(self, image: Decoded) -> Pixels:
        if self.channels == 3 or image.grey:
            return image.pixels[..., : self.channels]
        grey = (image.pixels @ _LUMA).round().astype(np.uint8)
        return np.asarray(grey[..., None])


@dataclass(frozen=True)
class Card:
    """What `model.json` says.

    Attributes:
        folder: the exported folder.
        content: everything in the file.
        classes: their names, in the order of the probabilities.
        input: the pixels that the student sees.
    """

    folder: Path
    content: Mapping[str, Any]
    classes: tuple[str, ...]
    input: Input

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Read the card of an exported folder.

        Raises:
            UserError: if it is missing, damaged or from another version.
        """
        content = read_sealed(folder / CARD, FIX)
        try:
            if content["version"] != VERSION:
                raise ValueError(f"version {content['version']}, not {VERSION}")
            facts = content["input"]
            inputs = Input(
                int(facts["side"]),
                int(facts["size"]),
                int(facts["channels"]),
                tuple(facts["mean"]),
                tuple(facts["std"]),
                str(facts["dtype"]),
            )
            return cls(folder, content, tuple(map(str, content["classes"])), inputs)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{folder / CARD} is not the card of an exported student of this version "
                f"({type(error).__name__}: {error}); fix: {FIX}"
            ) from None

    def file(self, name: str) -> Path:
        """A file of the folder, after comparing it with its checksum.

        Raises:
            UserError: if the folder has no such file, or it is damaged.
        """
        if name not in self.content["files"]:
            reason = self.content["onnx"].get("reason")
            raise UserError(
                f"{self.folder} holds no {name}"
                + (f": {reason}; use meal.load in Python" if reason and name == ONNX else "")
                + (": set export.int8: true and run dvc repro" if name == INT8 else "")
            )
        path = self.folder / name
        check_file(path, self.content["files"][name], FIX)
        return path
