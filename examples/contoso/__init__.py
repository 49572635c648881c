"""What Contoso's web application is in every framework: its pages, and what it remembers of the API behind them."""

import base64
import binascii
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import jinja2
import resilient_auth as ra
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from resilient_auth.signin import Page, SessionOptions, User

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"
#: A session without a request ends after half an hour, and any at the end of a working day; either may go on for four
#: hours while the provider is down (G13). The risk is the owner's to take.
SESSIONS = SessionOptions(idle=30 * 60, lifetime=8 * 3600, extension=4 * 3600)
#: Somebody sits before the page: an API that fails is given up soon.
API_WAITS = ra.TransportOptions(deadline=6.0, attempt_timeout=2.0, connect_timeout=1.0)
#: Seconds after which whoever can't be served is told to try again.
LATER = 30
#: What every answer has, unless it has its own. The provider is there for sign-out: browsers hold a form's action to it
#: where its redirect leads, too. Not `no-referrer`, which would hide that a form is ours.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self' https://login.microsoftonline.com",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_GLANCE_COUNTS = 1.0


@dataclass(frozen=True)
class Profile:
    """What the API told of a user, and when."""

    at: float
    told: dict[str, str]


class Profiles:
    """Keep what the API told last: better what was true a moment ago than nothing, and said to be old (G19).

    In this process's memory, and bounded. Where that isn't enough: your cache or your database.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], Profile] = OrderedDict()

    def keep(self, user: User, claims: dict[str, Any]) -> None:
        # The API of this sample answers with the token's claims; a real one would tell more.
        names = {"Name": "name", "User name": "preferred_username", "Directory": "tid", "Permission": "scp"}
        told = {label: str(claims.get(name, "")) for label, name in names.items()}
        with self._lock:
            self._kept[user.issuer, user.subject] = Profile(time.time(), told)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def of(self, user: User) -> Profile | None:
        with self._lock:
            return self._kept.get((user.issuer, user.subject))


class Operators:
    """Those who look after the application: /status for who is on call, /metrics for Prometheus.

    Both name authorities and scopes. A role of your own users is better than a password. Without one nobody is let in.
    """

    #: What the browser of somebody else is told.
    ASKED: ClassVar = {"WWW-Authenticate": "Basic"}

    def __init__(self, password: str | None) -> None:
        self._password = (password or secrets.token_urlsafe()).encode()
        self._registry = CollectorRegistry()
        self._registry.register(ra.telemetry.prometheus_collector())

    def know(self, authorization: str | None) -> bool:
        """Return whether a request's `Authorization` has the password."""
        try:
            given = base64.b64decode((authorization or "").removeprefix("Basic "), validate=True)
        except (binascii.Error, ValueError):
            return False
        return secrets.compare_digest(given.partition(b":")[2], self._password)

    def metrics(self) -> tuple[bytes, int, dict[str, str]]:
        return generate_latest(self._registry), 200, {"Content-Type": CONTENT_TYPE_LATEST}


class _Glance:
    """Whether this process's requests to the provider fail, for the banner: asks nobody, and seldom looks."""

    def __init__(self) -> None:
        self._again_at, self._failing = float("-inf"), False

    def __call__(self) -> bool:
        if time.monotonic() >= self._again_at:
            self._again_at = time.monotonic() + _GLANCE_COUNTS
            provider = "https://login.microsoftonline.com"
            breakers = ra.health().breakers
            self._failing = any(one.authority == provider and one.failing_since is not None for one in breakers)
        return self._failing


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M UTC")


_pages = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_pages.filters["time"] = _time
_pages.globals.update(sessions=SESSIONS, failing=_Glance())


def page(name: str, user: User | None = None, **told: Any) -> str:
    """Write one of the pages in `templates`."""
    return _pages.get_template(f"{name}.html").render(user=user, here=name, **told)


def sign_in_page(page_: Page) -> str:
    """Write a page of sign-in's in Contoso's looks: who can't sign in right now, who has signed out."""
    return page("sign_in", page=page_)


def profile_page(user: User, kept: Profile | None, *, fresh: bool) -> tuple[str, int, dict[str, str]]:
    """Write the profile, as old as it is, with its status and headers; where there is none, say so."""
    if kept is None:
        return unavailable_page(user, "A service that we need for it is out of reach.")
    return page("profile", user, profile=kept, old=not fresh), 200, {}


def unavailable_page(user: User, why: str) -> tuple[str, int, dict[str, str]]:
    """Write that a page must wait, with its status and headers."""
    return page("unavailable", user, why=why, seconds=LATER), 503, {"Retry-After": str(LATER)}


def account_page(user: User) -> tuple[str, int, dict[str, str]]:
    """Write what isn't for a session in its extension: its user may have been locked out meanwhile."""
    if user.extended:
        return unavailable_page(user, "It needs a more recent sign-in than yours, and nobody can sign in right now.")
    return page("account", user), 200, {}


def one_line(error: Exception) -> str:
    """Return what an error says, for a log."""
    return str(error).partition("\n")[0]


def error_page(status: int) -> str:
    """Write what to tell of an error."""
    text = "There is no such page." if status in (404, 405) else "Something went wrong on our side. Try again later."
    return page("message", title="Sorry, that failed", text=text)
