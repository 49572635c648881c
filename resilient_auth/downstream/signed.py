"""A request that carries our token: what is made of its answer, by the auth or by a transport of ours below it."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any, Final, NamedTuple

from .._engine.steps import Steps
from .origins import Origins
from .refusals import BearerCall

__all__ = ["SIGNED", "Signed", "merged_cookies", "position", "replayable", "rewind"]

#: The request extension in which a transport of ours finds this, or the error of a request that has no token. What it
#: has replaced no response hook has seen, such as one that raises for status.
SIGNED: Final = "resilient_auth.bearer"


class Signed:
    """What to do with a 401 to a request that was signed.

    Args:
        call: Decides about it.
        origins: Where tokens may go.
        library: httpx or httpx2.
    """

    __slots__ = ("_call", "_library", "_origins", "below")

    def __init__(self, call: BearerCall, origins: Origins, library: Any) -> None:
        self._call = call
        self._origins = origins
        self._library = library
        #: Whether a transport of ours sees to it.
        self.below = False

    def put_in(self, request: Any) -> None:
        """Put the token into a request."""
        request.headers["Authorization"] = f"Bearer {self._call.token}"

    def again(self, request: Any, response: Any) -> Steps[bool]:
        """Make a request ready to be sent again, where its answer wants that; return whether to send it."""
        if response.status_code != 401:
            return False
        # A redirect may have led elsewhere, without our token.
        asked = request if response._request is None else response.request
        url = asked.url
        if asked.headers.get("Authorization") != f"Bearer {self._call.token}":
            return False
        if not self._origins.allow(url.scheme, url.raw_host.decode("ascii"), url.port):
            return False
        again: bool = yield from self._call.go_on(
            response.headers.get_list("WWW-Authenticate"),
            replayable=partial(replayable, request.stream, self._library),
            read=_Read(response),
        )
        if again:
            self.put_in(request)
            self._keep_cookies(asked, request, response)
        return again

    def _keep_cookies(self, asked: Any, request: Any, response: Any) -> None:
        """Send along what a 401 has set, such as the place of a session behind a load balancer."""
        if "set-cookie" not in response.headers:
            return
        response.request = asked
        scratch = self._library.Request("GET", request.url)
        response.cookies.set_cookie_header(scratch)
        new = scratch.headers.get("Cookie")
        if new is not None:
            request.headers["Cookie"] = merged_cookies(request.headers.get("Cookie"), new)


class _Read(NamedTuple):
    """The step that reads an answer."""

    response: Any

    def run(self) -> Any:
        """Read it on this thread."""
        return self.response.read()

    def run_async(self) -> Awaitable[Any]:
        """Read it in this task."""
        reading: Awaitable[Any] = self.response.aread()
        return reading


def replayable(stream: Any, library: Any) -> bool:
    """Return whether a request's body is there to be sent again.

    Bytes are; so is a form whose files can be wound back. A generator isn't, nor is a file given as the body: httpx
    doesn't wind it back, so what went out again would be empty.

    Args:
        stream: The request's.
        library: httpx or httpx2.
    """
    if isinstance(stream, library.ByteStream):
        return True
    fields = getattr(stream, "fields", None)
    return isinstance(fields, list) and all(_rewinds(getattr(field, "file", b"")) for field in fields)


def position(body: Any) -> int | None:
    """Return where a body begins, so that it can be wound back there; None where it can't be sent again."""
    if body is None or isinstance(body, (bytes, str, dict)):
        return 0
    try:
        return int(body.tell()) if body.seekable() else None
    except (AttributeError, OSError, ValueError):
        return None


def rewind(body: Any, start: int | None) -> None:
    """Wind a body back to where it began."""
    if hasattr(body, "seek"):
        body.seek(start)


def _rewinds(file: Any) -> bool:
    if isinstance(file, (str, bytes)):
        return True
    seekable = getattr(file, "seekable", None)
    try:
        return seekable is not None and bool(seekable())
    except ValueError:  # it was closed meanwhile
        return False


def merged_cookies(sent: str | None, new: str) -> str:
    """Return a `Cookie` header with what an answer has set, in place of what was sent under the same names."""
    pairs = [*(sent.split("; ") if sent else ()), *new.split("; ")]
    return "; ".join({pair.partition("=")[0]: pair for pair in pairs}.values())
