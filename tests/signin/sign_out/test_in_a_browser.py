"""A person signs out in Chromium: the page that asks, the provider's page with its frames, and the way back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from leaving import Process, World
from playwright.sync_api import Page, expect, sync_playwright

from resilient_auth.events import SessionsEnded
from resilient_auth.testing import capture_events

#: Milliseconds that a browser may take on a busy machine.
PATIENCE = 30_000


@pytest.fixture
def page() -> Iterator[Page]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("there is no Chromium: `make browser` installs it, as root on Debian")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, chromium_sandbox=os.geteuid() != 0)
        context = browser.new_context(ignore_https_errors=True)
        context.set_default_timeout(PATIENCE)
        yield context.new_page()
        browser.close()


@pytest.mark.xdist_group("chromium")
def test_a_person_signs_out_everywhere(world: World, one: Process, page: Page) -> None:
    """Our page's form leads to the provider, whose page tells us by a frame that no other page may have; and back."""
    world.idp.register_sign_out("web", frontchannel=f"{one.url}/sign-out/front-channel")
    try:
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text) if "Content Security" in message.text else None)
        page.goto(f"{one.url}/me")
        page.get_by_role("button", name="ann@contoso.com").click()
        expect(page.locator("body")).to_contain_text("me ", timeout=PATIENCE)

        page.goto(f"{one.url}/sign-out")
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 800})
            violations = Axe().run(page).response["violations"]
            assert [one["id"] for one in violations] == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        with capture_events() as captured:
            page.get_by_role("button", name="Sign out").click()
            expect(page.get_by_text("You are signed out.")).to_be_visible(timeout=PATIENCE)
            assert page.url.partition("?")[0] == f"{one.url}/sign-out/done"
            captured.wait_for(SessionsEnded, count=2)
        assert {event.code for event in captured.of(SessionsEnded)} == {"sign_out", "front_channel"}
        assert [one["id"] for one in Axe().run(page).response["violations"]] == []
        assert refused == []
        page.goto(f"{one.url}/me")
        expect(page.get_by_role("button", name="ann@contoso.com")).to_be_visible(timeout=PATIENCE)

        there = f"{one.url}/sign-out/front-channel?iss={world.issuer(world.realms[0])}&sid=x"
        for framed, shown in ((there, False), (f"{one.url}/frameable", True)):
            page.goto(f"{one.url}/framing?{urlencode({'there': framed})}")
            assert (page.frames[1].url == framed) is shown
    finally:
        world.idp.register_sign_out("web")
