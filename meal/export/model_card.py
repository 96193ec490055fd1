"""The model card: `README.md` with the front matter that Hugging Face reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from meal.core.text import escape, plain


def write_model_card(facts: Mapping[str, Any], path: Path) -> None:
    """Write the card of an exported student from what `model.json` says."""
    template = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters |= {"escape": escape, "quote": _quote}
    arch = str(facts["network"]["arch"])
    text = environment.from_string(template).render(**facts, timm=arch.startswith("timm/"))
    path.write_text(text + "\n", encoding="utf-8")


def _quote(text: object) -> str:
    """A text as a YAML string."""
    return '"' + plain(text).replace("\\", "/").replace('"', "'") + '"'
