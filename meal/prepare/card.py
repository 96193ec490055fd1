"""The data card: the prepared images as numbers and as a contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from meal.core.files import atomic_path, write_json
from meal.data.prepared import SPLITS, Prepared

_SHOWN_CLASSES, _SHOWN_IMAGES = 20, 10  # rows and columns of the contact sheet
_TILE, _GAP, _NAMES = 48, 4, 150  # pixels


def write_card(data: Prepared, numbers: Path, sheet: Path) -> None:
    """Write `numbers` (JSON) and `sheet` (PNG)."""
    write_json(numbers, describe(data))
    with atomic_path(sheet) as temporary:
        contact_sheet(data).save(temporary, format="PNG")


def describe(data: Prepared) -> dict[str, Any]:
    """Counts, sizes, normalisation and checksum; DVC's tables show those that are one number."""
    manifest = data.manifest
    per_class = {
        split: np.bincount(data.labels(split).numpy(), minlength=data.classes).tolist()
        for split in SPLITS
    }
    return {
        "dataset": manifest["dataset"],
        "title": manifest["title"],
        "fingerprint": data.fingerprint,
        "images": manifest["counts"],
        "duplicates": manifest["duplicates"],
        "skipped": len(manifest["skipped"]),
        "ignored": manifest["ignored"],
        "store": manifest["store"],
        "shape": manifest["shape"],
        "file_sizes": list(manifest["sizes"].values()),
        "mean": data.mean,
        "deviation": data.std,
        "classes": manifest["classes"],
        "images_by_class": [per_class[split] for split in SPLITS],
    }


def contact_sheet(data: Prepared) -> Image.Image:
    """The first training images of each class, one row per class."""
    labels = data.labels("train").numpy()
    store = data.images("train")
    shown = min(data.classes, _SHOWN_CLASSES)
    step = _TILE + _GAP
    size = (_NAMES + _SHOWN_IMAGES * step + _GAP, shown * step + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for line in range(shown):
        top = _GAP + line * step
        name = " ".join(str(data.manifest["classes"][line]).split())  # one line
        draw.text((_GAP, top + _TILE // 2), name[:22], fill="black", font=font, anchor="lm")
        rows = np.flatnonzero(labels == line)[:_SHOWN_IMAGES]
        for column, pixels in enumerate(store.fetch(torch.from_numpy(rows)).numpy()):
            image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            image = image.convert("RGB").resize((_TILE, _TILE), Image.Resampling.BILINEAR)
            sheet.paste(image, (_NAMES + column * step, top))
    return sheet
