"""A Flask application whose users sign in at the emulator, in this process; its time is the test's."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from flask import Flask

import resilient_auth as ra
from resilient_auth.emulator import Emulator
from resilient_auth.integrations.flask import SignIn, install
from resilient_auth.signin import IdentityProvider, SignInNeeded, SignInOptions
from resilient_auth.testing import ManualClock

__all__ = ["BASE", "SCOPE", "Site"]

BASE = "https://app.example"
SCOPE = "api://profiles/profile.read"
_numbers = itertools.count()


class Site:
    """An application in this process, whose time is the test's; and visitors' browsers."""

    def __init__(
        self,
        emulator: Emulator,
        folder: Path,
        *,
        options: SignInOptions | None = None,
        others: Any = (),
        now: float | None = None,
        **more: Any,
    ) -> None:
        self.emulator = emulator
        self.folder = folder
        self.options = options
        # Breakers belong to the provider's origin: other tests' outages are theirs.
        self.tenant = f"signin{next(_numbers)}"
        self.more = {"sign_in": "b2c_1_in", "edit": "b2c_1_edit", "reset": "b2c_1_reset", "scopes": [SCOPE]} | more
        self.others = others
        self.clock = ManualClock(now)
        self.start()
        self.browser = self.another_browser()

    def wire(self) -> dict[str, Any]:
        return {"verify": self.emulator.ca_file, "proxies": {"https": self.emulator.proxy_url}}

    def provider(self, **more: Any) -> IdentityProvider:
        given = {"client_id": "web", "client_credential": "s", **self.wire(), **self.more, **more}
        return IdentityProvider.for_b2c(self.tenant, **given)

    def start(self) -> None:
        """Begin as a process does, with what is in the store alone."""
        self.store = self.open_store()
        settings = ra.Settings(clock=self.clock, wait=5.0, attempt_timeout=4.0, connect_timeout=2.0)
        self.app = Flask("application")
        providers = (self.provider(), *(make(self) for make in self.others))
        self.auth = SignIn(
            self.app, providers, base_url=BASE, store=self.store, options=self.options, settings=settings
        )
        install(self.app)
        self._views()

    def open_store(self) -> Any:
        return ra.FileStore(self.folder / "store.db", clock=self.clock)

    def _views(self) -> None:
        app, auth = self.app, self.auth

        @app.get("/")
        def home() -> str:
            return f"hello {auth.user.name if auth.user else 'stranger'}"

        @app.route("/me", methods=["GET", "POST"])
        @auth.login_required(scopes=[SCOPE])
        def me() -> str:
            assert auth.user is not None
            return f"me {auth.user.name}{' extended' if auth.user.extended else ''}"

        @app.get("/token")
        @auth.login_required(scopes=[SCOPE])
        def token() -> str:
            return str(auth.token())

        @app.get("/challenged")
        @auth.login_required
        def challenged() -> str:
            raise SignInNeeded('{"access_token":{"nbf":{"essential":true}}}')

        @app.get("/strong")
        @auth.login_required(acrs="c1")
        def strong() -> str:
            return "strong"

    def restart(self) -> None:
        """End the process, and begin another one."""
        self.stop()
        self.start()
        # The test client holds the application that it began with.
        self.browser.application = self.app

    def stop(self) -> None:
        self.auth.close()
        self.store.close()

    def another_browser(self) -> Any:
        return self.app.test_client()

    def get(self, path: str, browser: Any = None, **headers: str) -> Any:
        sent = {"accept": "text/html", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return (browser or self.browser).get(path, base_url=BASE, headers=sent)

    def post(self, path: str, data: Any = None, browser: Any = None, **headers: str) -> Any:
        sent = {"accept": "text/html", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return (browser or self.browser).post(path, base_url=BASE, data=data, headers=sent)

    def begin(self, path: str = "/me", browser: Any = None) -> str:
        """Ask for a page, and return where it leads."""
        answer = self.get(path, browser)
        assert answer.status_code == 303, answer.text
        return str(answer.headers["Location"])

    def answer(self, address: str, user: str = "ada") -> dict[str, str]:
        """Sign in at the provider, and return the form that comes back."""
        return self.emulator.sign_in(address, f"{user}@contoso.com")

    def sign_in(self, path: str = "/me", browser: Any = None, user: str = "ada") -> Any:
        return self.post("/signed-in", self.answer(self.begin(path, browser), user), browser)

    def cookie(self, name: str = "__Host-session", browser: Any = None) -> str | None:
        found = (browser or self.browser).get_cookie(name, domain="app.example")
        return None if found is None else str(found.value)

    def flows(self, browser: Any = None) -> list[str]:
        kept = (browser or self.browser)._cookies or {}
        return [cookie.key for cookie in kept.values() if cookie.key.startswith("__Host-sign-in-")]
