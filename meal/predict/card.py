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
_LARGEST = 4096  # side length in pixels
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

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Input:
        """Read and check the entry `input` of `model.json`."""
        found = cls(
            facts["side"], facts["size"], facts["channels"], tuple(facts["mean"]),
            tuple(facts["std"]), facts["dtype"],
        )  # fmt: skip
        whole = all(type(each) is int for each in (found.side, found.size))
        _expect(whole and 1 <= found.size <= found.side <= _LARGEST, "size")
        _expect(found.channels in (1, 3), "channels")
        numbers = [*found.mean, *found.std]
        _expect(all(type(each) in (int, float) for each in numbers), "mean and std")
        _expect(len(found.mean) == len(found.std) == found.channels, "mean and std")
        _expect(all(each > 0 for each in found.std), "std")
        _expect(found.dtype in ("uint8", "float32"), "dtype")
        return found

    def pixels(self, content: bytes) -> Pixels:
        """The pixels `(size, size, channels)` of an image file, decoded as `prepare` does.

        Raises:
            UserError: if the bytes are not a complete image.
        """
        return self.of(decode(content, self.side))

    def of(self, image: Decoded) -> Pixels:
        """The pixels `(size, size, channels)` of a decoded image of `side` x `side`."""
        return self.centre(self._in_channels(image)[None])[0]

    def centre(self, pixels: Pixels) -> Pixels:
        """From images `(N, side, side, C)` to what the network sees, `(N, size, size, C)`."""
        border = (self.side - self.size) // 2
        stop = border + self.size
        return pixels[:, border:stop, border:stop]

    def fed(self, pixels: Pixels) -> NDArray[Any]:
        """What the ONNX file takes for pixels `(N, size, size, C)`."""
        given = pixels if self.dtype == "uint8" else pixels.astype(np.float32) / np.float32(255)
        return np.ascontiguousarray(given)

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
        if not (folder / CARD).is_file():
            raise UserError(f"{folder} is not an exported student: it holds no {CARD}")
        content = read_sealed(folder / CARD, FIX)
        try:
            if content["version"] != VERSION:
                raise ValueError(f"version {content['version']}, not {VERSION}")
            classes, files = content["classes"], content["files"]
            _expect(isinstance(content["onnx"], dict), "onnx")
            _expect(_texts(classes) and len(classes) > 0, "classes")
            _expect(isinstance(files, dict) and _texts([*files, *files.values()]), "files")
            return cls(folder, content, tuple(classes), Input.read(content["input"]))
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
            reason = self.content["onnx"].get("reason") or (
                self.content["onnx"].get("int8_reason") if name == INT8 else None
            )
            raise UserError(
                f"{self.folder} holds no {name}"
                + (f": {reason}; use meal.load in Python" if reason else "")
                + (": export.int8 was false" if name == INT8 and not reason else "")
            )
        path = self.folder / name
        check_file(path, self.content["files"][name], FIX)
        return path


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} has an unexpected value")


def _texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
