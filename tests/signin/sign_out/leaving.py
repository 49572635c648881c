"""Applications over TLS whose users sign in at the emulator, and the browsers of these users."""

from __future__ import annotations

import atexit
import functools
import html
import itertools
import os
import re
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx
import trustme
from flask import Flask, request
from werkzeug.serving import make_server

import resilient_auth as ra
from resilient_auth.integrations.flask import SignIn, mount_signals
from resilient_auth.signin import IdentityProvider, SessionOptions, SignalsReceiver, SignInOptions, SignOutOptions
from resilient_auth.verify import Revocations

_numbers = itertools.count()
SCOPE = "api://profiles/profile.read"


@functools.cache
def certified() -> tuple[ssl.SSLContext, str]:
    """Return what a server on this machine has, and whose certificate that is."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with tempfile.NamedTemporaryFile(suffix=".pem", delete=False) as file:
        file.write(authority.cert_pem.bytes())
    atexit.register(os.unlink, file.name)
    return context, file.name


class Failing:
    """A store that fails while it is told to."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.label = store.label
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        if self.dead:
            raise ra.StoreUnavailable(self.label, "timeout", "it is dead")
        return getattr(self.store, name)


class Process:
    """One process of an application, as far as another one can tell."""

    def __init__(self, world: World, store: Any = None) -> None:
        self.world = world
        self.store = Failing(store or ra.FileStore(world.folder / "store.db", key=world.key))
        self.revocations = Revocations(self.store, look_every=0.2)  # type: ignore[arg-type]
        self.app = Flask("application")
        self.server = make_server("localhost", 0, self.app, threaded=True, ssl_context=world.context)
        self.url = f"https://localhost:{self.server.port}"
        self.auth = SignIn(
            self.app,
            [world.provider(realm) for realm in world.realms],
            base_url=world.base or self.url,
            store=self.store,  # type: ignore[arg-type]
            options=SignInOptions(
                sessions=SessionOptions(recheck=world.recheck),
                sign_out=SignOutOptions(revocations=self.revocations),
            ),
            settings=ra.Settings(wait=5.0, attempt_timeout=4.0, connect_timeout=2.0),
        )
        self.transmitter = ra.ClaimsVerifier(
            issuer=world.issuer(world.realms[0]),
            audience="https://receiver.example",
            verify=world.idp.ca_file,
        )
        self.receiver = SignalsReceiver(
            self.transmitter,
            store=self.store,  # type: ignore[arg-type]
            sign_in=self.auth,
            revocations=self.revocations,
            bearer="a-token-of-the-transmitter",
        )
        mount_signals(self.app, self.receiver)

        @self.app.get("/me")
        @self.auth.login_required(scopes=[SCOPE])
        def me() -> str:
            return f"me {self.auth.user.subject if self.auth.user else ''}"

        @self.app.get("/framing")
        def framing() -> str:
            return f'<iframe src="{html.escape(request.args["there"])}"></iframe>'

        @self.app.get("/frameable")
        def frameable() -> str:
            return "shown"

        @self.app.get("/token")
        @self.auth.login_required(scopes=[SCOPE])
        def token() -> str:
            return str(self.auth.token())

        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def accounts(self) -> list[Any]:
        [party, *_] = self.auth.engine.site.parties.values()
        return list(party.apps["sign_in"].get_accounts())

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.auth.close()
        self.transmitter.close()
        self.revocations.close()
        self.store.dead = False
        self.store.store.close()


class World:
    """A provider, and an application's processes, that share a store."""

    def __init__(self, idp: Any, folder: Path, number: int | None = None) -> None:
        self.idp = idp
        self.folder = folder
        self.key = "".join(f"{n:02x}" for n in range(32))
        number = next(_numbers) if number is None else number
        #: Of the application's first provider, and of another one.
        self.realms = (f"op{number}", f"other{number}")
        self.context, self.ca_file = certified()
        self.trust = ssl.create_default_context(cafile=self.ca_file)
        self.trust.load_verify_locations(idp.ca_file)
        self.base = ""
        #: Seconds; the default is longer than a test need wait.
        self.recheck = 0.2
        #: Of the application's sessions.
        self.cookie_name = "__Host-session"
        self.processes: list[Process] = []
        self.browsers: list[Browser] = []

    def issuer(self, realm: str) -> str:
        return f"{self.idp.url}/tenants/{realm}"

    def provider(self, realm: str) -> IdentityProvider:
        return IdentityProvider.for_openid(
            self.issuer(realm),
            client_id="web",
            client_credential="s",
            name=realm,
            scopes=[SCOPE],
            response_mode="form_post",
            verify=self.idp.ca_file,
        )

    def process(self) -> Process:
        made = Process(self)
        self.base = self.base or made.url
        self.cookie_name = made.auth.engine.site.session_cookie
        self.processes.append(made)
        return made

    def browser(self) -> Browser:
        made = Browser(self)
        self.browsers.append(made)
        return made

    def close(self) -> None:
        for browser in self.browsers:
            browser.http.close()
        for process in self.processes:
            process.close()


class Browser:
    """A person's browser, which follows no redirect by itself."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.http = httpx.Client(verify=world.trust, trust_env=False, timeout=20.0, headers={"accept": "text/html"})

    def sign_in(self, process: Process, user: str = "ann@contoso.com", realm: str | None = None) -> None:
        """Sign in at the application's first provider, or at another one."""
        path = "/me" if realm is None else f"/sign-in?provider={realm}&next=/me"
        page = self.http.get(f"{process.url}{path}")
        assert page.status_code == 303, page.text
        chosen = self.http.post(page.headers["location"], data={"emulator_user": user})
        answer = self.http.post(f"{process.url}/signed-in", data=fields_in(chosen.text))
        assert answer.status_code == 303, answer.text
        assert self.is_in(process)

    @property
    def cookie(self) -> str:
        """The session's id, as this browser has it."""
        return str(self.http.cookies[self.world.cookie_name])

    def is_in(self, process: Process, cookie: str | None = None) -> bool:
        """Return whether the application knows who this is, or who has this cookie."""
        if cookie is None:
            answer = self.http.get(f"{process.url}/me")
        else:
            answer = httpx.get(
                f"{process.url}/me",
                headers={"accept": "text/html", "cookie": f"{self.world.cookie_name}={cookie}"},
                verify=self.world.trust,
                trust_env=False,
            )
        assert answer.status_code in (200, 303, 503), answer.text
        return answer.status_code == 200

    def sid(self, process: Process) -> str:
        """Return the provider's session, as the application knows it."""
        return str(self.session(process).who.sid)

    def session(self, process: Process) -> Any:
        found = process.auth.engine.site.sessions.find(self.cookie)
        assert found is not None
        return found.session

    def sign_out(self, process: Process, **fields: str) -> httpx.Response:
        """Press the button on the page that asks."""
        page = self.http.get(f"{process.url}/sign-out", params=fields)
        assert page.status_code == 200
        return self.http.post(f"{process.url}/sign-out", data=fields_in(page.text))


def fields_in(page: str) -> dict[str, str]:
    """Return what a page's form sends along."""
    fields = re.findall(r"<input [^>]*>", page)
    found = (dict(re.findall(r'(\w+)="([^"]*)"', one)) for one in fields)
    return {one["name"]: html.unescape(one["value"]) for one in found if one.get("type") == "hidden"}
