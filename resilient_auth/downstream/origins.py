"""To whom a token may be sent: https origins that the owner named."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import httpx

from .._policy.checks import require
from .._policy.endpoint import DEFAULT_PORTS, origin_from
from ..errors import ConfigurationError

__all__ = ["Origins", "named_origin"]


def named_origin(name: str, value: object, *, allow_http_loopback: bool = False, bare: bool = True) -> str:
    """Check an origin that an owner named.

    Args:
        name: The argument that it was given as.
        value: Such as `https://api.example`.
        allow_http_loopback: Whether `http://localhost` and its like will do.
        bare: Whether a path is refused.

    Raises:
        ConfigurationError: It is no origin, or a token sent there could be read on the way.
    """
    # A text such as "false", out of the environment, is true.
    fits = isinstance(allow_http_loopback, bool)
    require(fits, f"allow_http_loopback must be True or False, not {allow_http_loopback!r}")
    require(isinstance(value, (str, httpx.URL)), f"{name} must be a URL such as 'https://api.example', not {value!r}")
    try:
        url = httpx.URL(value)  # type: ignore[arg-type]
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigurationError(f"{name} is no URL that can be read: {error}") from None
    origin = origin_from(url.scheme, url.raw_host.decode("ascii"), url.port)
    require(
        url.scheme in DEFAULT_PORTS and bool(url.host),
        f"{name} must begin with https:// and a host, such as 'https://api.example', not {origin!r}",
    )
    require(not url.userinfo, f"{name} holds a user name or password: take it out of the URL")
    if bare:
        extra = url.path not in ("", "/") or bool(url.query) or bool(url.fragment)
        require(not extra, f"{name} must be an origin without a path: {origin!r}")
    if url.scheme == "http":
        require(
            allow_http_loopback and is_loopback(url.host),
            f"{name} must be https, not {origin!r}: a token sent over http can be read on the way "
            "(allow_http_loopback=True permits it to this machine, for tests)",
        )
    return origin


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Origins:
    """Know the origins that a token may go to; where none were named, the first one asked becomes the one."""

    def __init__(self, named: str | Iterable[str] | None, *, allow_http_loopback: bool = False) -> None:
        self._allow_http_loopback = allow_http_loopback
        self._named: frozenset[str] = frozenset()
        #: The first origin that was asked, where none were named. Setting a default is atomic.
        self._first: dict[None, str] = {}
        if named is None:
            return
        given = list(named) if isinstance(named, Iterable) and not isinstance(named, str) else [named]
        require(bool(given), "origins is empty: name the origins that the token may go to, or leave it out")
        self._named = frozenset(
            named_origin("each of origins", origin, allow_http_loopback=allow_http_loopback) for origin in given
        )

    def allow(self, scheme: str, host: str, port: int | None) -> bool:
        """Return whether a token may go there; a request without one may.

        Raises:
            ConfigurationError: It would go over http to a host whose https side was named, or that was asked first.
        """
        origin = origin_from(scheme, host, port)
        if origin in self._named:
            return True
        if not self._named:
            first = named_origin("the URL of the first request", origin, allow_http_loopback=self._allow_http_loopback)
            self._named = frozenset({self._first.setdefault(None, first)})
            return origin in self._named
        if scheme == "http" and any(httpx.URL(known).host == host for known in self._named):
            raise ConfigurationError(f"{origin} would get its token over http, where it can be read: use https")
        return False
