"""The status page in Chromium: found without fault by axe, live without reload, and usable by keyboard."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import page_scenes
import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from flask import Flask
from page_scenes import HOSTILE
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

import resilient_auth.integrations.fastapi as on_fastapi
import resilient_auth.integrations.flask as on_flask
from resilient_auth.integrations.status_page import starlette as streaming
from resilient_auth.telemetry.page import serving

sys.path.append(str(Path(__file__).parents[2] / "integrations"))

from served import asgi, wsgi

#: Milliseconds that a browser may take on a busy machine.
PATIENCE = 20_000

pytestmark = pytest.mark.xdist_group("chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("there is no Chromium: `make browser` installs it, as root on Debian")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, chromium_sandbox=os.geteuid() != 0)


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open the page as a browser of some kind does; nobody else may be asked, and nothing may be complained of."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []
    asked: list[str] = []

    def run(url: str, **options: Any) -> Page:
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()

        def complain(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                complaints.append(message.text)

        page.on("console", complain)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{url}/status")
        assert all(each.startswith((url, "data:")) for each in asked), asked
        return page

    yield run
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_EVERY", 0.1)
    monkeypatch.setattr(streaming, "STREAM_SECONDS", 2.0)
    monkeypatch.setattr(serving, "_KEPT", 0.05)
    monkeypatch.setattr(serving, "_RETRY", 200)


@pytest.fixture
def url() -> Iterator[str]:
    app = FastAPI()
    on_fastapi.mount_status_page(app, unprotected=True, title="Orders")
    with asgi(app) as served:
        yield served


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(
    url: str, open_page: Callable[..., Page], standing: Callable[..., Any], width: int, scheme: str
) -> None:
    """In an outage, with everything unfolded; nothing is wider than the screen, and the policy lets the page work."""
    standing(page_scenes.outage(), levels=page_scenes.levels(kinds=("acquisitions",)))
    # What axe brings along is no part of the page, and its policy would refuse it.
    page = open_page(url, viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    expect(page.locator("#live")).to_have_text("live")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    # The colours are all that differs in the dark.
    found = Axe().run(page, options={"runOnly": ["color-contrast"]} if scheme == "dark" else None)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(17, 22, 29)") == (scheme == "dark")


def test_it_is_live_without_reload(url: str, open_page: Callable[..., Page], standing: Callable[..., Any]) -> None:
    """What changes comes by itself, under its strict policy; what was unfolded stays so, and the focus where it is."""
    now = standing(page_scenes.calm())
    page = open_page(url)
    expect(page.locator("#live")).to_have_text("live")
    expect(page.get_by_role("status")).to_contain_text("All is well")
    page.evaluate("document.querySelector('[role=status]').dataset.mine = 'kept'")
    summary = page.locator("#numbers-acquisitions summary")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#numbers-acquisitions table")).to_be_visible()
    now.health, now.levels = page_scenes.outage(HOSTILE), page_scenes.levels(HOSTILE)
    expect(page.get_by_role("status")).to_contain_text("At risk")
    expect(page.locator("#requests")).to_contain_text("owned")
    expect(page).to_have_title("AT RISK: Orders")
    assert page.evaluate("document.querySelector('[role=status]').dataset.mine") == "kept"
    expect(page.locator("#numbers-acquisitions table")).to_be_visible()
    expect(summary).to_be_focused()
    assert page.evaluate("document.querySelectorAll('main script, main img, main style').length") == 0


def test_a_keyboard_and_a_screen_reader_find_their_way(
    url: str, open_page: Callable[..., Page], standing: Callable[..., Any]
) -> None:
    """Landmarks, a heading for each section, a caption for each table, and a way past the head."""
    standing(page_scenes.outage())
    page = open_page(url, viewport={"width": 390, "height": 800})
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the verdict")).to_be_focused()
    for role in ("banner", "main", "contentinfo"):
        expect(page.get_by_role(role)).to_have_count(1)
    headings = [each.inner_text() for each in page.get_by_role("heading", level=2).all()]
    assert headings[:2] == ["Verdict", "Time to dark"]
    assert page.locator("table").count() == page.locator("table > caption").count() > 4
    assert page.locator("svg:not([role=img]):not([aria-hidden=true])").count() == 0
    seen = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.tagName + (document.activeElement.getAttribute('role') || '')"))
    assert {"SUMMARY", "DIVregion"} <= seen


def test_it_asks_again_where_there_is_no_stream(
    url: str, open_page: Callable[..., Page], standing: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all places for streams are taken, and where a browser knows none."""
    now = standing(page_scenes.calm())
    monkeypatch.setattr(serving, "_MOST_STREAMS", 0)
    monkeypatch.setattr(serving, "_SCRIPT", serving._SCRIPT.replace("POLL = 10000", "POLL = 200"))
    page = open_page(url, bypass_csp=True)
    expect(page.locator("#live")).to_have_text("live, by asking every 10 s")
    now.health = page_scenes.outage()
    expect(page.get_by_role("status")).to_contain_text("At risk")


def test_flask_holds_no_thread_for_a_reader(open_page: Callable[..., Page], standing: Callable[..., Any]) -> None:
    """Each event is an answer of its own, and the page is as live."""
    now = standing(page_scenes.calm())
    app = Flask(__name__)
    on_flask.mount_status_page(app, unprotected=True)
    with wsgi(app) as url:
        page = open_page(url)
        expect(page.locator("#live")).to_have_text("live")
        now.health = page_scenes.outage()
        expect(page.get_by_role("status")).to_contain_text("At risk")
        page.wait_for_timeout(400)
        expect(page.locator("#live")).to_have_text("live")
        page.close()  # before the application is: it would ask again, and complain
