from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from meal.core import device
from meal.models.prediction import batch_size, spans


def test_a_batch_is_as_large_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.zeros(1, 3, 32, 32)
    network = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.AdaptiveAvgPool2d(1)).eval()
    assert batch_size(network, image) == 512  # this fits on any machine
    # A batch may use an eighth of 128 MiB; an image needs four maps of 64 x 32 x 32 floats, 1 MiB.
    pages = (128 << 20) // os.sysconf("SC_PAGE_SIZE")
    real = os.sysconf
    monkeypatch.setattr(
        device.os, "sysconf", lambda name: pages if name == "SC_PHYS_PAGES" else real(name)
    )
    assert batch_size(network, image) == 16
    # Never fewer images than it takes to keep their bits.
    assert batch_size(network, torch.zeros(1, 3, 256, 256)) == 16
    assert not network[0]._forward_hooks


def test_spans_cover_everything_with_equal_lengths() -> None:
    assert list(spans(10, 4)) == [(0, 4), (4, 8), (6, 10)]
    assert list(spans(3, 4)) == [(0, 3)]
