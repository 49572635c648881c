"""Bearer auth for requests: the rules of `resilient_auth.BearerAuth`, driven by a response hook."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import requests
import requests.auth
from urllib3.util import parse_url

from .._engine.steps import Invoke, run
from .._policy.endpoint import origin_from
from .._policy.subject import SubjectOf
from ..clock import Clock, SystemClock
from ..downstream.bearer import BearerCall, BearerRules
from ..downstream.origins import Origins
from ..downstream.source import TokenSource

__all__ = ["BearerAuth"]

_SYSTEM = SystemClock()


class BearerAuth(requests.auth.AuthBase):
    """Send a token with each request of a requests session (G17, G22).

    Args:
        credential: Anything with azure-core's `get_token` or `get_token_info`, or a function; not an async one.
        scopes: What the token is for; none where the credential is a function.
        origins: Where the token may go, such as `https://api.example`. Requests to other origins go without it. When
            not given, the origin of the first request is the one.
        tenant_id: Another tenant than the credential's own.
        cae: Ask for tokens that can be revoked early: claims challenges are handled here.
        subject: For a function that answers for the current user, and gives a new token each time: a function that
            returns the user's id, by which refusals are remembered. The token itself is asked for at each request, in
            the caller's context, and never held here.
        allow_http_loopback: Let the token go to this machine over http, for tests.
        clock: Where the time comes from; for tests.

    Raises:
        ConfigurationError: An argument is wrong; or, at a request, its URL is http.
    """

    def __init__(
        self,
        credential: Any,
        *scopes: str,
        origins: str | Iterable[str] | None = None,
        tenant_id: str | None = None,
        cae: bool = True,
        subject: SubjectOf | None = None,
        allow_http_loopback: bool = False,
        clock: Clock = _SYSTEM,
    ) -> None:
        self._origins = Origins(origins, allow_http_loopback=allow_http_loopback)
        source = TokenSource(credential, scopes, cae=cae, tenant_id=tenant_id)
        self._rules = BearerRules(source, clock=clock, subject=subject)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a request, and see to its answer."""
        # The one parser by which the connection is made too: another one might see another host.
        scheme, host, port = _parts(request.url)
        if not self._origins.allow(scheme, host, port):
            return request
        start = _position(request.body)
        call = run(self._rules.begin(origin_from(scheme, host, port)))
        _sign(request, call.token)
        request.hooks["response"].append(partial(self._answered, call, start))
        return request

    def _answered(
        self, call: BearerCall, start: int | None, response: requests.Response, **options: Any
    ) -> requests.Response:
        def read() -> None:
            _ = response.content
            response.close()

        challenges = _challenges(response)
        # A redirect carries the hook along, and perhaps not the token.
        if challenges is None or response.request.headers.get("Authorization") != f"Bearer {call.token}":
            return response
        if not self._origins.allow(*_parts(response.request.url)):
            return response
        if not run(call.go_on(challenges, replayable=lambda: start is not None, read=Invoke(read))):
            return response
        again = response.request.copy()
        again.hooks["response"] = []
        _sign(again, call.token)
        body: Any = again.body
        if hasattr(body, "seek"):
            body.seek(start)
        retried: requests.Response = response.connection.send(again, **options)
        retried.history.append(response)
        retried.request = again
        call.end(_challenges(retried))
        return retried


def _sign(request: requests.PreparedRequest, token: str) -> None:
    request.headers["Authorization"] = f"Bearer {token}"


def _parts(url: str | None) -> tuple[str, str, int | None]:
    parsed = parse_url(url or "")
    return parsed.scheme or "", parsed.host or "", parsed.port


def _position(body: Any) -> int | None:
    """Return where a body begins, so that it can be wound back there; None where it can't be sent again."""
    if body is None or isinstance(body, (bytes, str)):
        return 0
    try:
        return int(body.tell()) if body.seekable() else None
    except (AttributeError, OSError, ValueError):
        return None


def _challenges(response: requests.Response) -> list[str] | None:
    """Return a 401's challenges; None for any other answer."""
    if response.status_code != 401:
        return None
    raw: Any = getattr(response.raw, "headers", None)
    if hasattr(raw, "getlist"):
        return [str(value) for value in raw.getlist("WWW-Authenticate")]
    joined = response.headers.get("WWW-Authenticate")
    return [] if joined is None else [joined]
