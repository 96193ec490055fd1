"""The pages in a real browser without a network: Debian's `chromium`, which `.ci/run` installs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.stages.conftest import Project

pytestmark = pytest.mark.slow

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PICTURES = {
    "error_cost", "training", "reliability", "confusion", "error_similarity", "seen_differently",
    "dataset",
}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path, "these tests need a browser: apt-get install chromium"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


def open_page(browser: Browser, path: Path, viewport: Any, scheme: Any) -> tuple[Page, list[str]]:
    """Open a page without a network; return it, its errors, and its requests to the network."""
    context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True)
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(request.url[:200]))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("file:", "data:", "blob:"))
            else faults.append(request.url[:200])
        ),
    )
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    page.goto(path.resolve().as_uri())
    page.wait_for_load_state("networkidle")
    return page, faults


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_report_is_complete_and_readable(
    viewport: Any, scheme: str, clean: Project, browser: Browser
) -> None:
    page, faults = open_page(browser, clean.folder / "reports/index.html", viewport, scheme)
    assert faults == []
    found = page.eval_on_selector_all("figure", "all => all.map(one => one.id)")
    assert set(found) == PICTURES or set(found) == PICTURES - {"seen_differently"}
    for name in found:
        image = page.locator(f"figure#{name} img")
        width, height, words = image.evaluate("i => [i.naturalWidth, i.naturalHeight, i.alt]")
        assert width > 100 and height > 50, name
        assert len(words) > 30, name  # a description in words
        assert image.bounding_box()["height"] > 40  # type: ignore[index]
    # Wide tables and pictures scroll in their own frames; the page itself does not.
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert page.locator("table").count() == 5
    assert "resnet from vgg, resnet, preact" in page.title()
    hint = page.locator(".hint").first
    assert hint.is_visible() == (viewport is PHONE)
    for name in found:  # a picture is never enlarged
        image = page.locator(f"figure#{name} img")
        natural, shown = image.evaluate("i => [i.naturalWidth, i.getBoundingClientRect().width]")
        assert shown <= natural + 1, name
    assert "student, distilled" in page.locator("table").first.inner_text()
    ink, paper = page.evaluate(
        "() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]; }"
    )
    light = [sum(int(part) for part in rgb[4:-1].split(",")) for rgb in (ink, paper)]
    assert (light[0] < light[1]) == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_in_pictures_follows_the_colour_scheme(
    scheme: str, clean: Project, browser: Browser
) -> None:
    path = clean.folder / "reports/figures/error_cost.svg"
    page, faults = open_page(browser, path, DESKTOP, scheme)
    assert faults == []
    fills = page.eval_on_selector_all("text", "all => all.map(t => getComputedStyle(t).fill)")
    assert len(set(fills)) == 1 and len(fills) > 5
    light = sum(int(part) for part in fills[0][4:-1].split(","))
    assert (light > 384) == (scheme == "dark")


@pytest.mark.parametrize("command", ["show", "diff"])
def test_dvcs_plots_are_drawn_without_a_network(
    command: str, clean: Project, browser: Browser
) -> None:
    if command == "diff":
        clean.run("dvc", "exp", "run", "-S", "distill.seed=4")
    clean.run("dvc", "plots", command)
    page, faults = open_page(browser, clean.folder / "dvc_plots/index.html", DESKTOP, "dark")
    # The page is white, so pictures in it must not follow the system's colour scheme.
    assert "light" in page.evaluate("getComputedStyle(document.documentElement).colorScheme")
    page.wait_for_selector(".vega-embed canvas, .vega-embed svg")
    page.wait_for_timeout(1000)
    assert faults == []
    content = clean.read("dvc_plots/index.html")
    for title in ("losses of the student", "reliability", "confusion of the student"):
        assert title in content
    drawn = page.locator(".vega-embed canvas, .vega-embed svg.marks").count()
    assert drawn >= 10
