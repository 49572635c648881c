"""What asks a provider, and its answers: how far they are followed and read."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from .._policy.endpoint import WireIdentity
from ..errors import MalformedAnswer

__all__ = ["LARGEST_ANSWER", "Wire", "WireResponse", "followed", "read"]

#: Bytes; no answer of a provider comes near.
LARGEST_ANSWER = 4 * 1024 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 3
#: What nearly everybody says, and needs no reading.
_UTF_8 = frozenset({"application/json", "application/json; charset=utf-8", "application/json;charset=utf-8"})
#: What the names begin with that are read: those of providers, in Python's spelling.
_CHARSETS = ("utf-", "iso8859-", "cp12")


@dataclass(frozen=True, slots=True, repr=False)
class WireResponse:
    """What MSAL wants to know of a response."""

    status_code: int
    text: str
    #: With lower-case names.
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Answer({self.status_code})"


class Wire(Protocol):
    """Send one request."""

    @property
    def identity(self) -> WireIdentity:
        """What tells it from other wires."""

    def send(self, method: str, url: str, *, ends: float, **options: Any) -> WireResponse:
        """Send it and read the whole answer, by monotonic time `ends`; note in the option `trail` how far it came."""

    def close(self) -> None:
        """Close idle connections."""


def followed(
    method: str, url: str, send: Callable[[str, bool], tuple[WireResponse, str | None]], options: Mapping[str, Any]
) -> WireResponse:
    """Send a request, and a GET on to where it is led, within https and the origin that was asked.

    A provider's document is trusted by the origin that it came from, and a managed identity's request carries a secret.

    Args:
        method: GET or POST.
        url: Where to.
        send: Sends it to an address, told whether that is the first; returns the answer and where that leads.
        options: The request's, of which `redirects=False` wants the answer as it is.

    Raises:
        MalformedAnswer: It is led elsewhere, or too often.
    """
    at = url
    for hop in range(_MOST_REDIRECTS + 1):
        answer, location = send(at, hop == 0)
        if location is None or method != "GET" or not options.get("redirects", True):
            return answer
        led = _joined(at, location)
        if led is None or not _stays(url, led):
            raise MalformedAnswer(
                f"an answer of {answer.status_code} that leads away from https and the origin that was asked"
            )
        at = led
    raise MalformedAnswer(f"more than {_MOST_REDIRECTS} redirects")


def _joined(url: str, location: str) -> str | None:
    try:
        return urljoin(url, location)
    except ValueError:  # such as a bracket without its other one
        return None


def _stays(asked: str, led: str) -> bool:
    before, after = urlsplit(asked), urlsplit(led)
    try:
        same_port = (before.port or 443) == (after.port or 443)
    except ValueError:
        return False
    return same_port and before.scheme == after.scheme == "https" and before.hostname == after.hostname


def read(
    status: int, headers: Mapping[str, str], parts: Iterable[bytes], options: Mapping[str, Any]
) -> tuple[WireResponse, str | None]:
    """Read an answer, as it comes over the wire, and where it leads.

    Args:
        status: Its HTTP status.
        headers: Its headers, whose names know no case.
        parts: Its body, which nobody has unpacked.
        options: The request's, of which `largest` bounds the body in bytes.

    Raises:
        MalformedAnswer: It is too large, or packed, which isn't asked for.
    """
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise MalformedAnswer("an answer with a content encoding, which wasn't asked for")
    largest = options.get("largest", LARGEST_ANSWER)
    body = bytearray()
    for part in parts:
        body += part
        if len(body) > largest:
            raise MalformedAnswer(f"an answer of more than {largest} bytes")
    said = headers.get("content-type", "").lower()
    text = body.decode("utf-8" if said in _UTF_8 else _charset(said), errors="replace")
    location = headers.get("location") if status in _REDIRECTS else None
    return WireResponse(status, text, {str(k).lower(): str(v) for k, v in headers.items()}), location


def _charset(content_type: str) -> str:
    message = Message()
    message["Content-Type"] = content_type
    try:
        found = codecs.lookup(message.get_content_charset() or "utf-8").name
    except (LookupError, ValueError):
        return "utf-8"
    # Python has some that aren't for texts, and one that takes minutes.
    return found if found.startswith(_CHARSETS) else "utf-8"
