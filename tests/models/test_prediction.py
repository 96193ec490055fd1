from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from meal.core import device
from meal.data.stores import ArrayStore
from meal.models.prediction import batch_size, plain_logits, spans
from meal.views.pipelines import PlainPipeline


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


def test_rows_have_the_logits_that_they_have_among_all_images() -> None:
    images = torch.randint(0, 256, (1100, 4, 4, 1), dtype=torch.uint8)
    pipeline = PlainPipeline(ArrayStore(images), [0.5], [0.25], torch.device("cpu"))
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    rows = torch.arange(1, 1100, 2)  # more than a batch, so that the last one overlaps
    found = torch.from_numpy(plain_logits(network, pipeline, rows))
    expected = network((images[rows].permute(0, 3, 1, 2) / 255 - 0.5) / 0.25).detach()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.from_numpy(plain_logits(network, pipeline))[rows], expected)
