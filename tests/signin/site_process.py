"""A process of an application whose users sign in: it answers what it is asked, until it is killed."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from signin_site import Site

from resilient_auth.emulator import Emulator
from resilient_auth.signin import SignInOptions

__all__ = ["Process"]

#: Forked: to import anew what an application is made of takes seconds, and nothing of one is here before.
_PROCESSES = multiprocessing.get_context("fork")


class Process:
    """One that runs.

    Args:
        emulator: The provider.
        folder: Where its store is.
        options: The application's.
        now: Its time, in seconds since the epoch: it stands still.
    """

    def __init__(self, emulator: Emulator, folder: Path, options: SignInOptions, now: float) -> None:
        provider = SimpleNamespace(ca_file=emulator.ca_file, proxy_url=emulator.proxy_url)
        self._asking, asked = _PROCESSES.Pipe()
        self._child = _PROCESSES.Process(target=_serve, args=(asked, provider, folder, options, now), daemon=True)
        self._child.start()
        asked.close()

    def ask(self, path: str, cookies: dict[str, str], form: dict[str, str] | None = None) -> tuple[int, str, str]:
        """Return the status, the text and where it leads; change a browser's cookies as it would."""
        self._asking.send((path, cookies, form))
        assert self._asking.poll(60.0)
        status, text, location, kept = self._asking.recv()
        cookies.clear()
        cookies.update(kept)
        return status, text, location

    def kill(self) -> None:
        """End it as a power cut does."""
        self._child.kill()
        self._child.join()
        self._asking.close()


def _serve(asked: Connection, provider: Any, folder: Path, options: SignInOptions, now: float) -> None:
    site = Site(provider, folder, options=options, now=now)
    while True:
        path, cookies, form = asked.recv()
        browser = site.another_browser()
        for name, value in cookies.items():
            browser.set_cookie(name, value, domain="app.example", secure=True)
        answer = site.get(path, browser) if form is None else site.post(path, form, browser)
        kept = {cookie.key: cookie.value for cookie in (browser._cookies or {}).values()}
        asked.send((answer.status_code, answer.text, answer.headers.get("Location", ""), kept))
