"""What the stage `export` reads."""

from __future__ import annotations

from typing import Any, Literal

from meal.core.settings import Section


class ExportSlice(Section):
    """What the folder holds, and the facts that its model card states.

    Attributes:
        name: of the student in `networks`.
        input: what the ONNX file takes.
        int8: whether to add a quantised file.
        licence: of the data, as far as it is known.
        teachers: their architectures and widths, by name.
        method: the section `distill`.
    """

    name: str
    input: Literal["uint8", "float32"]
    int8: bool
    licence: str
    teachers: dict[str, dict[str, Any]]
    method: dict[str, Any]
