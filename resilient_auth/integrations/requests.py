"""Bearer auth for requests: the rules of `resilient_auth.BearerAuth`, driven by a response hook."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import requests
import requests.auth
from requests.cookies import RequestsCookieJar
from urllib3.util import parse_url

from .._engine.steps import Invoke, Steps, run
from ..downstream import errors
from ..downstream.bearer import Signer
from ..downstream.refusals import BearerCall, BearerRules
from ..downstream.signed import merged_cookies, position, rewind
from ..token import fingerprint

__all__ = ["BearerAuth", "TokenUnavailable"]

#: Their stubs say nothing of what they take.
_cookies: Any = requests.cookies
_MOST_SIGNED = 8


class TokenUnavailable(errors.TokenUnavailable, requests.RequestException):  # type: ignore[misc]
    """Say that a credential gave no token, or that the provider denied it."""


class BearerAuth(Signer, requests.auth.AuthBase):
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

    _unavailable = TokenUnavailable

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a request, and see to its answer."""
        # The one parser by which the connection is made too: another one might see another host.
        origin = self._signed_at(*_parts(request.url))
        if origin is None:
            return request
        start = position(request.body)
        try:
            call = run(self._rules.begin(origin))
        except TokenUnavailable as error:
            raise _about(error, request) from error.__cause__
        request.headers["Authorization"] = f"Bearer {call.token}"
        request.hooks["response"].append(_Answered(self._rules, self._signed_at, call, start))
        return request


class _Answered:
    """The hook that sees to the answers of a request, which may be sent several times and copied.

    Args:
        rules: Decide.
        signed_at: Returns the origin of an address that gets tokens; None for another one.
        call: The request's, as it was signed first.
        start: Where its body begins; None where it can't be sent again.
    """

    def __init__(
        self, rules: BearerRules, signed_at: Callable[..., str | None], call: BearerCall, start: int | None
    ) -> None:
        self._rules = rules
        self._signed_at = signed_at
        self._start = start
        #: The tokens that it was signed with, first and of late: a redirect carries the hook along, and perhaps not the
        #: token. Copies are sent with the first one each time.
        self._first = fingerprint(call.token)
        self._latest: deque[str] = deque(maxlen=_MOST_SIGNED)

    def __call__(self, response: requests.Response, **options: Any) -> requests.Response:
        """Return the answer, or the one to the request with another token."""
        request = response.request
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if response.status_code != 401 or fingerprint(token) not in (self._first, *self._latest):
            return response
        origin = self._signed_at(*_parts(request.url))
        if origin is None:
            return response
        call = self._rules.sent(origin, token)
        while run(self._go_on(call, response)):
            response = self._send_again(call, response, options)
        return response

    def _go_on(self, call: BearerCall, response: requests.Response) -> Steps[bool]:
        def read() -> None:
            _ = response.content
            response.close()

        challenges = _challenges(response)
        if challenges is None:
            return False
        try:
            return (yield from call.go_on(challenges, replayable=lambda: self._start is not None, read=Invoke(read)))
        except TokenUnavailable as error:
            raise _about(error, response.request) from error.__cause__

    def _send_again(self, call: BearerCall, response: requests.Response, options: dict[str, Any]) -> requests.Response:
        again = response.request
        # The session goes on with this request: its redirects, and whoever sends it another time. What is left in the
        # history is another one.
        response.request = again.copy()
        again.headers["Authorization"] = f"Bearer {call.token}"
        if fingerprint(call.token) not in self._latest:
            self._latest.append(fingerprint(call.token))
        _keep_cookies(again, response)
        rewind(again.body, self._start)
        retried: requests.Response = response.connection.send(again, **options)
        retried.history = [*response.history, response]
        retried.request = again
        return retried


def _about(error: Any, request: requests.PreparedRequest) -> TokenUnavailable:
    """Note in an error which request it is about."""
    error.request = request
    told: TokenUnavailable = error
    return told


def _keep_cookies(request: Any, response: requests.Response) -> None:
    """Send along what a 401 has set, here and in redirects, such as the place of a session behind a load balancer."""
    jar = RequestsCookieJar()
    _cookies.extract_cookies_to_jar(jar, response.request, response.raw)
    if not jar:
        return
    if request._cookies is not None:
        _cookies.merge_cookies(request._cookies, jar)
    scratch = request.copy()
    sent = scratch.headers.pop("Cookie", None)
    new = _cookies.get_cookie_header(jar, scratch)
    if new is not None:
        request.headers["Cookie"] = merged_cookies(sent, new)


def _parts(url: str | None) -> tuple[str, str, int | None]:
    parsed = parse_url(url or "")
    return parsed.scheme or "", parsed.host or "", parsed.port


def _challenges(response: requests.Response) -> list[str] | None:
    """Return a 401's challenges; None for any other answer."""
    if response.status_code != 401:
        return None
    raw: Any = getattr(response.raw, "headers", None)
    if hasattr(raw, "getlist"):
        return [str(value) for value in raw.getlist("WWW-Authenticate")]
    joined = response.headers.get("WWW-Authenticate")
    return [] if joined is None else [joined]
