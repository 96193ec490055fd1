"""The cost of the zoo's architectures, for people who choose one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

KNOWN = Path(__file__).with_name("zoo.json")  # parameters, multiply-adds; a test counts again
KNOWN_FOR = (3, 32, 10)  # channels, side length in pixels, classes


def zoo_costs(
    names: Sequence[str], channels: int, image_size: int, classes: int
) -> dict[str, tuple[int, int]]:
    """Parameters and multiply-adds of architectures at width 1, by name.

    The usual ones are read from a file: building a network imports libraries for seconds.
    """
    usual = (channels, image_size, classes) == KNOWN_FOR
    known = json.loads(KNOWN.read_text(encoding="utf-8")) if usual else {}
    found = {name: (known[name][0], known[name][1]) for name in names if name in known}
    for name in names:
        if name not in found:
            from meal.evaluation.costs import count
            from meal.models.spec import NetworkSpec

            cost = count(NetworkSpec(name, 1.0, channels, image_size, classes))
            found[name] = cost.parameters, cost.macs
    return found
