"""The data card: the prepared images as numbers and as a contact sheet."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from meal.core.files import atomic_path, write_json
from meal.data.prepared import SPLITS, Prepared

_SHOWN_CLASSES, _SHOWN_IMAGES = 20, 10  # rows and columns of the contact sheet
_POOL_ROWS = 2
_TILE, _GAP, _NAMES = 48, 4, 150  # pixels


def write_card(data: Prepared, numbers: Path, sheet: Path) -> None:
    """Write `numbers` (JSON) and `sheet` (PNG)."""
    write_json(numbers, describe(data))
    with atomic_path(sheet) as temporary:
        contact_sheet(data).save(temporary, format="PNG")


def describe(data: Prepared) -> dict[str, Any]:
    """Counts, sizes, normalisation and checksum; DVC's tables show those that are one number.

    `labels` are those of training and validation images: the ones that had to be known.
    """
    manifest = data.manifest
    labels = {split: data.labels(split).numpy() for split in SPLITS}
    per_class = {
        split: np.bincount(values[values >= 0], minlength=data.classes).tolist()
        for split, values in labels.items()
    }
    used = manifest["labels"]
    return {
        "dataset": manifest["dataset"],
        "title": manifest["title"],
        "fingerprint": data.fingerprint,
        "images": manifest["counts"],
        "labels": {"used": sum(used.values()), **used},
        "unlabelled": data.count("train") - used["train"],
        "statistics": manifest["statistics"],
        "duplicates": manifest["duplicates"],
        "skipped": len(manifest["skipped"]),
        "ignored": manifest["ignored"],
        "store": manifest["store"],
        "shape": manifest["shape"],
        "file_sizes": list(manifest["sizes"].values()),
        "mean": data.mean,
        "std": data.std,
        "classes": manifest["classes"],
        "images_by_class": [per_class[split] for split in SPLITS],
    }


def contact_sheet(data: Prepared) -> Image.Image:
    """The first labelled training images of each class, one row per class; then unlabelled ones."""
    labels = data.labels("train").numpy()
    store = data.images("train")
    lines = [
        (str(data.manifest["classes"][number]), np.flatnonzero(labels == number)[:_SHOWN_IMAGES])
        for number in range(min(data.classes, _SHOWN_CLASSES))
    ]
    unlabelled = np.flatnonzero(labels < 0)[: _POOL_ROWS * _SHOWN_IMAGES]
    parts = np.array_split(unlabelled, _POOL_ROWS) if len(unlabelled) else []
    lines += [("(unlabelled)", part) for part in parts]
    step = _TILE + _GAP
    size = (_NAMES + _SHOWN_IMAGES * step + _GAP, len(lines) * step + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), _font()
    for line, (title, rows) in enumerate(lines):
        top = _GAP + line * step
        name = " ".join(title.split())  # one line
        draw.text((_GAP, top + _TILE // 2), name[:22], fill="black", font=font, anchor="lm")
        for column, pixels in enumerate(store.fetch(torch.from_numpy(rows)).numpy()):
            image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            image = image.convert("RGB").resize((_TILE, _TILE), Image.Resampling.BILINEAR)
            sheet.paste(image, (_NAMES + column * step, top))
    return sheet


def _font() -> ImageFont.FreeTypeFont:
    """DejaVu, which matplotlib brings: Pillow's own font lacks most letters beyond ASCII."""
    found = find_spec("matplotlib")  # imports nothing
    assert found is not None and found.origin is not None
    fonts = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(fonts / "DejaVuSans.ttf", 10)
