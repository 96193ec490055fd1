"""From the bytes of an image file to a square image: the only module that knows image formats.

Decoding is a pure function, so `prepare` and later readers of a file get the same pixels.
"""

from __future__ import annotations

import io
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from meal.core.errors import UserError

# Pillow reads more, but some, such as PostScript, run programs or read other files.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")

_MOST_BYTES = 2**29  # of a file
_SIXTEEN_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_GREY = ("1", "L", "LA", "La", *_SIXTEEN_BITS)
_CLEAR = ("RGBA", "LA", "PA", "RGBa", "La")
_TRANSPOSED = 5  # EXIF orientations from here on swap width and height


@dataclass(frozen=True)
class Decoded:
    """An image.

    Attributes:
        pixels: uint8 `(side, side, 3)`; the channels are equal if the image is grey.
        grey: whether the file holds only grey levels.
        size: width and height of the file, after EXIF orientation.
    """

    pixels: NDArray[np.uint8]
    grey: bool
    size: tuple[int, int]


def read_image(path: Path) -> bytes:
    """The content of an image file.

    Raises:
        OSError: if it cannot be read.
        UserError: if it is not a regular file (reading a pipe or a device may never end), or is
            larger than any image.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise UserError("not a regular file")
    if found.st_size > _MOST_BYTES:
        raise UserError(f"larger than {_MOST_BYTES >> 20} MiB")
    return path.read_bytes()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow, but refuse images that are larger than its limit.

    Warnings belong to the whole process: code that decodes in threads enters this around them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(content: bytes, side: int | None = None) -> Decoded:
    """The largest central square of an image, at `side` x `side` pixels; None keeps its own size.

    Resizing is bilinear with antialiasing. EXIF orientation is applied, 16 bits are scaled to 8,
    transparent images are put on white, and only the first frame is read.

    Raises:
        UserError: if the bytes are not a complete image, or exceed Pillow's limit on pixels.
    """
    with quiet() if threading.current_thread() is threading.main_thread() else nullcontext():
        try:
            image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
            if side is not None:
                # JPEG can be decoded at a reduced size; twice the target keeps the quality.
                size = image.size
                image.draft(None, (2 * side, 2 * side))
                return decode_image(image, side, size)
            return decode_image(image)
        except Exception as error:  # each format raises its own, and hostile files any
            raise UserError(_reason(error)) from None


def decode_image(
    image: Image.Image, side: int | None = None, size: tuple[int, int] | None = None
) -> Decoded:
    """The same for an image that Pillow has opened; `size` is that of its file, if known.

    Raises:
        Exception: whatever Pillow raises for a broken file.
    """
    grey, size = image.mode in _GREY, size or image.size
    if image.getexif().get(ExifTags.Base.Orientation, 1) >= _TRANSPOSED:
        size = size[::-1]
    image = _eight_bits(ImageOps.exif_transpose(image))
    width, height = image.size
    square = min(width, height)
    if (width, height) != (side or square,) * 2:
        left, top = (width - square) / 2, (height - square) / 2
        box = (left, top, left + square, top + square)
        image = image.resize((side or square,) * 2, Image.Resampling.BILINEAR, box=box)
    return Decoded(np.array(image), grey, size)


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB."""
    image.load()
    if image.mode in _SIXTEEN_BITS:
        levels = np.asarray(image, dtype=np.float64)
        if levels.min() < 0 or levels.max() > 65535:
            raise UserError("grey levels of more than 16 bits")
        clear = levels == image.info.get("transparency", -1)
        image = Image.fromarray(np.where(clear, 255, (levels / 257).round()).astype(np.uint8))
    elif image.mode == "F":
        raise UserError("floating-point grey levels")
    clear_colour = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(clear_colour, tuple) and max(clear_colour) > 255:
        # The file has 16 bits per channel, of which Pillow keeps the upper eight.
        image.info["transparency"] = tuple(value >> 8 for value in clear_colour)
    if image.mode in _CLEAR or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    """An error in a few words: its message without line breaks, or its type."""
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image in a known format ({', '.join(FORMATS)})"
    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return "larger than Pillow's limit against decompression bombs"
    return " ".join(str(error).split()) or type(error).__name__
