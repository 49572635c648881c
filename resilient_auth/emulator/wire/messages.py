"""Requests and answers, between the wire and those who answer."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import parse_qs, unquote, unquote_plus, urlsplit

from ..endpoints import Host

_FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Request:
    """One HTTP request, read completely."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    expired_tokens: bool = False

    @cached_property
    def path(self) -> str:
        """Its path, without the query."""
        return urlsplit(self.target).path or "/"

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """The decoded parts of its path, empty ones left out."""
        return tuple(unquote(part) for part in self.path.split("/") if part)

    @cached_property
    def query(self) -> dict[str, str]:
        """The first value of each query parameter."""
        return {name: values[0] for name, values in _values(urlsplit(self.target).query).items()}

    @cached_property
    def form(self) -> dict[str, str]:
        """The first value of each form field; none of a body that isn't a form."""
        return {name: values[0] for name, values in self.fields.items()}

    @cached_property
    def fields(self) -> dict[str, list[str]]:
        """The values of each form field."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        return _values(self.body.decode("utf-8", "replace")) if kind == _FORM else {}

    @property
    def host(self) -> str:
        """The host and port by which the client came."""
        return self.headers.get("host", "localhost").lower()


@dataclass(frozen=True)
class Response:
    """One HTTP answer, and the identifier of the token that it carries or was asked with."""

    status: int
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    token_id: str | None = None


@dataclass(frozen=True)
class Site:
    """What one listener serves: which endpoint a request is for, and the answer to it."""

    host: Host | None
    endpoint_of: Callable[[Request], str]
    respond: Callable[[Request], Response]
    tls: bool = True


def json_response(
    payload: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = (), token_id: str | None = None
) -> Response:
    """Answer with JSON."""
    return Response(status, json.dumps(payload).encode(), headers=headers, token_id=token_id)


def html_response(page: str, status: int = 200) -> Response:
    """Answer with a page."""
    return Response(status, page.encode(), "text/html; charset=utf-8")


def redirect(location: str) -> Response:
    """Send the browser elsewhere."""
    return Response(302, b"", "text/html; charset=utf-8", (("Location", location),))


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Read client id and secret from an HTTP Basic header, decoded as RFC 6749, section 2.3.1 has it."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return unquote_plus(user), unquote_plus(secret)


def base64url(raw: bytes) -> str:
    """Write bytes as tokens and keys do: in base64url, without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _values(encoded: str) -> dict[str, list[str]]:
    try:
        return parse_qs(encoded, keep_blank_values=True, max_num_fields=200)
    except ValueError:
        return {}
