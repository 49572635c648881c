"""Bearer auth for requests: the rules of `resilient_auth.BearerAuth`, driven by a response hook."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import requests
import requests.auth
from urllib3.util import parse_url

from .._policy.subject import SubjectOf
from ..clock import Clock, SystemClock
from ..downstream.bearer import BearerRules, GetToken, Send, Steps
from ..downstream.origins import Origins, origin_of
from ..downstream.source import TokenSource

__all__ = ["BearerAuth"]

_SYSTEM = SystemClock()


class BearerAuth(requests.auth.AuthBase):
    """Send a token with each request of a requests session (G17, G22).

    Args:
        credential: Anything with azure-core's `get_token` or `get_token_info`, or a function; none of asyncio's.
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
        self._source = TokenSource(credential, scopes, cae=cae, tenant_id=tenant_id)
        self._origins = Origins(origins, allow_http_loopback=allow_http_loopback)
        self._rules = BearerRules(takes_claims=self._source.takes_claims, clock=clock, subject=subject)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a request, and see to its answer."""
        # The one parser by which the connection is made too: another one might see another host.
        scheme, host, port = _parts(request.url)
        if not self._origins.allow(scheme, host, port):
            return request
        start = _position(request.body)
        steps = self._rules.steps(origin_of(scheme, host, port), lambda: start is not None)
        step = self._answer_asks(steps, next(steps))
        if isinstance(step, Send):
            _sign(request, step.token)
            token = step.token

            def on_response(response: requests.Response, **options: Any) -> requests.Response:
                return self._go_on(steps, token, start, response, options)

            request.hooks["response"].append(on_response)
        return request

    def _go_on(
        self, steps: Steps, token: str, start: int | None, response: requests.Response, options: dict[str, Any]
    ) -> requests.Response:
        # A redirect carries the hook along, and perhaps not the token.
        if response.request.headers.get("Authorization") != f"Bearer {token}":
            return response
        if not self._origins.allow(*_parts(response.request.url)):
            return response
        if response.status_code != 401:
            return response
        try:
            step: GetToken | Send | None = steps.send(_challenges(response))
            if isinstance(step, GetToken):
                _ = response.content  # read, it frees its connection while the provider is asked
                response.close()
            step = self._answer_asks(steps, step)
        except StopIteration:
            return response
        if not isinstance(step, Send):
            return response
        again = response.request.copy()
        again.hooks["response"] = []
        _sign(again, step.token)
        body: Any = again.body
        if hasattr(body, "seek"):
            body.seek(start)
        retried: requests.Response = response.connection.send(again, **options)
        retried.history.append(response)
        retried.request = again
        try:
            refused = retried.status_code == 401
            steps.send(_challenges(retried) if refused else None)
        except StopIteration:
            pass
        return retried

    def _answer_asks(self, steps: Steps, step: GetToken | Send | None) -> GetToken | Send | None:
        while isinstance(step, GetToken):
            if step.forget and step.refused is not None:
                self._source.forget(step.refused)
            step = steps.send(self._source.token(step.claims))
        return step


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


def _challenges(response: requests.Response) -> list[str]:
    raw: Any = getattr(response.raw, "headers", None)
    if hasattr(raw, "getlist"):
        return [str(value) for value in raw.getlist("WWW-Authenticate")]
    joined = response.headers.get("WWW-Authenticate")
    return [] if joined is None else [joined]
