"""Labels with few values: what others wrote becomes one of those that are known, or `_OTHER`."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from urllib.parse import urlsplit

from .._policy.endpoint import DEFAULT_PORTS
from ..errors import ResilientAuthError, TokenDenied
from ..events import CODES
from .metrics import MOST_ADDRESSES, OTHER

__all__ = ["Addresses", "attributes", "code_of", "known", "port_of"]

#: What a provider may say why it denies: RFC 6749 (4.1.2.1, 5.2), RFC 8628, RFC 8707, OpenID Connect Core; Entra's own.
_OAUTH = frozenset(
    {
        "access_denied",
        "account_selection_required",
        "authorization_pending",
        "consent_required",
        "expired_token",
        "interaction_required",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_resource",
        "invalid_scope",
        "invalid_target",
        "login_required",
        "request_not_supported",
        "server_error",
        "slow_down",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_grant_type",
        "unsupported_response_type",
    }
)

#: Of these the semantic conventions want a number.
_NUMBERS = frozenset({"server.port", "http.response.status_code"})


def _codes_of(kind: type[ResilientAuthError]) -> set[str]:
    return {kind.code}.union(*(_codes_of(below) for below in kind.__subclasses__()))


def known(code: str) -> str:
    """Return a code if it is one of those that are known, else `_OTHER`."""
    if code in CODES or code in _OAUTH or code in _codes_of(ResilientAuthError):
        return code
    is_status = code.startswith("http_") and len(code) == 8 and code.isascii() and code[5:].isdecimal()
    return code if is_status else OTHER


def code_of(error: BaseException | None) -> str:
    """Return why something failed; "" where it didn't."""
    if error is None:
        return ""
    if isinstance(error, TokenDenied):
        return known(str(error.error))
    if isinstance(error, ResilientAuthError):  # a code of ours, whatever the text says
        return error.code
    kind = type(error)
    return kind.__name__ if kind.__module__ in ("builtins", "asyncio.exceptions") else OTHER


class Addresses:
    """Tell so many hosts apart, those that come first, and no more."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin with none: at first, and in a forked child."""
        self._lock = threading.RLock()  # as the tally's
        self._known: dict[str, str] = {}
        self._told: set[str] = set()

    def of(self, url: str) -> str:
        """Return the host of a URL, or of what else is called; "" for none."""
        found = self._known.get(url)
        if found is not None:
            return found
        host = host_of(url)
        with self._lock:
            if host not in self._told:
                if len(self._told) >= MOST_ADDRESSES:
                    return OTHER
                self._told.add(host)
            if len(self._known) >= 10 * MOST_ADDRESSES:
                self._known.clear()
            self._known[url] = host
        return host


def host_of(url: str) -> str:
    """Return the host of a URL without a user's name or a port; the text itself where it is no URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return OTHER
    return parts.hostname or ("" if parts.scheme else url)


def port_of(url: str) -> str:
    """Return the port of a URL; "" where there is none."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return ""
    return "" if port is None else str(port)


def attributes(facts: Iterable[tuple[str, str]]) -> dict[str, str | int]:
    """Return labels as OpenTelemetry has them: none that is absent, and numbers where these are meant."""
    return {name: int(value) if name in _NUMBERS and value.isdecimal() else value for name, value in facts if value}
