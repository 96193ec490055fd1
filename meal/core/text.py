"""Text that comes from elsewhere, such as file names and class names, made safe to show."""

from __future__ import annotations

import re


def printable(text: object) -> str:
    """The text on one line, with line breaks and other control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def escape(text: object) -> str:
    """Foreign text, such as a name, on one line and with Markdown syntax escaped."""
    return re.sub(r"([\\`*|\[\]<>~$&]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", plain(text))


def plain(text: object) -> str:
    """Foreign text on one line, without invisible characters."""
    return " ".join("".join(c for c in str(text) if c.isspace() or c.isprintable()).split())
