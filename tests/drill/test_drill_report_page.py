"""The report as people see it, on a phone and on a desk, in Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from resilient_auth.drill.plan import Plan
from resilient_auth.drill.report import RunInfo, render
from resilient_auth.drill.run import Outcome

pytestmark = pytest.mark.xdist_group("chromium")


@pytest.fixture(params=[(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")], ids=lambda p: f"{p[0]}-{p[1]}")
def page(request: pytest.FixtureRequest, outcome: Callable[..., Outcome], tmp_path: Path) -> Iterator[Page]:
    """A report of two faults, at a width and in a colour scheme."""
    report = tmp_path / "report.html"
    about = RunInfo(command="resilient-auth drill", started=1.7e9, took=60.0, versions={"msal": "1.39.0"}, plan=Plan())
    report.write_text(render([outcome(), outcome(missed=1, scenario=9)], about))
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found, "there is no Chromium: run sh tests/browser.sh"
    width, scheme = request.param
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, chromium_sandbox=os.geteuid() != 0)
        shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        shown.goto(report.as_uri())
        yield shown
        browser.close()


def test_it_fits_and_bars_compare(page: Page) -> None:
    """Bars that stand for the same whole are equally long, no figure wraps, and nothing sticks out."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    widths = page.evaluate("[...document.querySelectorAll('.bar')].map(e => e.getBoundingClientRect().width)")
    assert len(widths) == 4
    assert max(widths) - min(widths) < 1
    heights = page.evaluate("[...document.querySelectorAll('.figures td > span:first-child')].map(e => e.offsetHeight)")
    line = page.evaluate("parseFloat(getComputedStyle(document.querySelector('.figures td')).fontSize) * 2")
    assert all(height < line for height in heights)
    sticking_out = page.evaluate(
        "[...document.querySelectorAll('.figures th, .figures td, .who div, .who span')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map(e => e.textContent)"
    )
    assert sticking_out == []
