"""Where a path leads that is taken for one of the application's: as Chromium reads it, and not as we do."""

from __future__ import annotations

import os
import random
import shutil

import pytest
from playwright.sync_api import sync_playwright

from resilient_auth.signin.paths import own_path

#: What readers of addresses differ over.
_PARTS = [
    "/", "/", "//", "\\", "/\\", "\t", "\n", "\r", "\x7f", "\xa0", " ", "%20", "%00", "%09", "%2f", "%2F", "%252f",
    "%5c", "%", ".", "..", "%2e", "%2E", "%252e", "?", "#", "@", ":", ";", "&", "=", "+", "*", "'", '"', "<", ">", "[",
    "]", "|", "^", "é", "\u2025", "\uff0f", "\u3002", "%c2%a0", "%e3%80%82", "https:", "javascript:", "evil.example",
    "shop", "shop", "a",
]  # fmt: skip
_LEADS_AWAY = """([paths, prefix]) => paths.filter(path =>
    ["https://app.example/signed-in", "https://app.example/shop/signed-in"].some(base => {
        try {
            const {origin, pathname} = new URL(path, base);
            return origin !== "https://app.example"
                || !(pathname === prefix || pathname.startsWith(`${prefix}/`));
        } catch {
            return true;
        }
    }))"""


def _taken(prefix: str, most: int) -> list[str]:
    """Make up paths of which all are taken for the application's."""
    drawn, found = random.Random(prefix), set[str]()
    while len(found) < most:
        begins = drawn.choice(["", "/", "/", f"{prefix}/", f"{prefix}/"])
        path = own_path(begins + "".join(drawn.choice(_PARTS) for _ in range(drawn.randint(1, 7))), "", prefix)
        if path:
            found.add(path)
    return sorted(found)


@pytest.mark.xdist_group("chromium")
def test_no_path_leads_elsewhere() -> None:
    """Neither to another host nor beside the path below which the application is."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("there is no Chromium: `make browser` installs it, as root on Debian")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=os.geteuid() != 0)
        page = browser.new_page()
        for prefix in ("", "/shop"):
            paths = _taken(prefix, 5_000)
            assert page.evaluate(_LEADS_AWAY, [paths, prefix]) == []
        browser.close()
