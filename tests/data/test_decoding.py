"""Decoding of image files of every kind: each has a defined outcome."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from meal.core.errors import UserError
from meal.data.decoding import decode
from tests.files import as_bytes, picture


def square(color: object, mode: str = "RGB", side: int = 8) -> Image.Image:
    return Image.new(mode, (side, side), color)  # type: ignore[arg-type]


def test_a_wide_image_is_cropped_to_its_central_square() -> None:
    values = np.zeros((8, 16, 3), np.uint8)
    values[:, 4:12] = 200  # the centre
    decoded = decode(as_bytes(Image.fromarray(values)), 8)
    assert decoded.size == (16, 8)
    assert (decoded.pixels == 200).all()
    assert decode(as_bytes(Image.fromarray(values)), None).pixels.shape == (8, 8, 3)


def test_an_image_of_the_right_size_is_unchanged() -> None:
    image = picture(3, (16, 16))
    assert np.array_equal(decode(as_bytes(image), 16).pixels, np.asarray(image))


def test_downsizing_averages_over_pixels() -> None:
    values = np.arange(64, dtype=np.uint8).reshape(8, 8).repeat(3).reshape(8, 8, 3)
    small = decode(as_bytes(Image.fromarray(values)), 1).pixels
    assert abs(int(small[0, 0, 0]) - values.mean()) <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grey_modes_are_recognised_as_grey(mode: str) -> None:
    image = square(1 if mode == "1" else 0, mode)
    decoded = decode(as_bytes(image), 8)
    assert decoded.grey
    assert (decoded.pixels[..., 0] == decoded.pixels[..., 2]).all()


def test_sixteen_bits_are_scaled_not_truncated() -> None:
    levels = np.array([[0, 257 * 7], [257 * 128, 65535]], np.uint16)
    decoded = decode(as_bytes(Image.fromarray(levels)), 2)
    assert decoded.pixels[..., 0].tolist() == [[0, 7], [128, 255]]


def test_transparent_pixels_become_white() -> None:
    image = square((10, 20, 30, 0), "RGBA")
    image.putpixel((0, 0), (10, 20, 30, 255))
    decoded = decode(as_bytes(image), 8)
    assert decoded.pixels[0, 0].tolist() == [10, 20, 30]
    assert decoded.pixels[4, 4].tolist() == [255, 255, 255]
    grey = decode(as_bytes(square((9, 0), "LA")), 8)
    assert grey.grey and (grey.pixels == 255).all()


@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_a_transparent_sixteen_bit_level_becomes_white(kind: str) -> None:
    clear, seen = 0x1234, 0x9ABC
    channels = 1 if kind == "grey" else 3
    row = b"\0" + struct.pack(f">{4 * channels}H", *[clear] * 2 * channels, *[seen] * 2 * channels)

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", 4, 4, 16, 0 if kind == "grey" else 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    content += chunk(b"tRNS", struct.pack(f">{channels}H", *[clear] * channels))
    content += chunk(b"IDAT", zlib.compress(row * 4)) + chunk(b"IEND", b"")
    pixels = decode(content).pixels
    assert (pixels[:, :2] == 255).all()
    assert np.abs(pixels[:, 2:].astype(int) - 0x9A).max() <= 1


def test_a_palette_gives_its_colours_and_white_for_the_transparent_one() -> None:
    image = square(1, "P")
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.putpixel((0, 0), 0)
    plain = decode(as_bytes(image), 8).pixels
    assert plain[0, 0].tolist() == [0, 0, 0] and plain[4, 4].tolist() == [200, 100, 50]
    clear = decode(as_bytes(image, transparency=1), 8).pixels
    assert clear[0, 0].tolist() == [0, 0, 0] and clear[4, 4].tolist() == [255, 255, 255]


def test_cmyk_is_converted_to_rgb() -> None:
    decoded = decode(as_bytes(square((0, 255, 255, 0), "CMYK"), "JPEG", quality=100), 8)
    assert decoded.pixels[4, 4, 0] > 200 and decoded.pixels[4, 4, 1:].max() < 60


def test_exif_orientation_is_applied() -> None:
    values = np.zeros((8, 16, 3), np.uint8)
    values[:, :8] = 250  # the left half is bright
    image = Image.fromarray(values)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated by a quarter turn to the right
    decoded = decode(as_bytes(image, exif=exif), None)
    assert decoded.size == (8, 16)
    upright = decode(as_bytes(image.rotate(-90, expand=True)), None)
    assert np.array_equal(decoded.pixels, upright.pixels)


def test_only_the_first_of_several_frames_is_read() -> None:
    content = as_bytes(
        square((255, 0, 0)), "GIF", save_all=True, append_images=[square((0, 255, 0))]
    )
    assert decode(content, 8).pixels[0, 0].tolist() == [255, 0, 0]


def test_a_large_jpeg_decoded_at_a_reduced_size_changes_little() -> None:
    content = as_bytes(picture(1, (640, 480)), "JPEG", quality=95)
    small = decode(content, 32).pixels.astype(int)
    whole = Image.open(__import__("io").BytesIO(content)).crop((80, 0, 560, 480))
    expected = np.asarray(whole.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(small - expected).mean() < 1.5


def bomb() -> bytes:
    """A small PNG file that claims to have 20,000 x 20,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    )


JPEG = as_bytes(picture(0, (64, 64)), "JPEG")
PNG = as_bytes(picture(0, (64, 64)))
BROKEN = {
    "empty": b"",
    "text": b"no image at all",
    "truncated jpeg": JPEG[: len(JPEG) // 2],
    "truncated png": PNG[: len(PNG) // 2],
    "png with a flipped bit": PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:],
    "a program for a printer": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "a bomb": bomb(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_refused(name: str) -> None:
    with pytest.raises(UserError) as error:
        decode(BROKEN[name], 8)
    assert "\n" not in str(error.value) and "0x" not in str(error.value)


def test_a_decompression_bomb_is_reported_as_one() -> None:
    with pytest.raises(UserError, match="Pillow's limit"):
        decode(bomb(), 8)


def test_floating_point_grey_levels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="floating-point grey levels"):
        decode(as_bytes(square(0.5, "F"), "TIFF"), 8)
