"""Back-channel logout: the provider says by itself who is signed out (OpenID Connect Back-Channel Logout 1.0).

logout token ─▶ verified ─▶ seen before? ─▶ sessions and tokens ended ─▶ noted as seen ─▶ 200
                    └ 400        └ 400           └ not written: 400, to be sent again; here it holds already
"""

from __future__ import annotations

import json
from dataclasses import replace

from ..._engine.steps import Steps
from ...errors import Overloaded, ProviderUnavailable, StoreUnavailable
from ...events import SignOutRefused, emit
from ...verify import InvalidToken
from ...verify.security_events.rules import LOGOUT, EventToken
from ...verify.security_events.tokens import AnyVerifier, EventTokens
from ..messages import Answer, Arrival
from ..sessions.calls import StoreCall
from .ending import Ending, Once, Whom

__all__ = ["BackChannel", "form_type", "untold"]

_FORM = "application/x-www-form-urlencoded"


class BackChannel:
    """Answer a provider's logout tokens.

    Args:
        verifier: Whose tokens are believed: that of the ID tokens.
        ending: Ends what is to end.
        once: Remembers what was done.
        typed: Whether `typ` must say that it is a logout token.
    """

    def __init__(self, verifier: AnyVerifier, ending: Ending, once: Once, *, typed: bool) -> None:
        self._tokens = EventTokens(verifier, replace(LOGOUT, typed=typed))
        self._ending = ending
        self._once = once

    def handle(self, arrival: Arrival) -> Steps[Answer]:
        """Answer a request."""
        token = arrival.only("logout_token")
        if form_type(arrival) != _FORM or not token:
            return self._refused("malformed", "send one logout_token in a form")
        try:
            told: EventToken = yield from self._tokens.verifying(token)
        except InvalidToken as error:
            return self._refused(error.code, error.message)
        except ProviderUnavailable as error:
            return _not_now("the token's key is unavailable", error.retry_after)
        try:
            seen = yield StoreCall(lambda: self._act(told))
        except StoreUnavailable as error:
            return _not_now(untold(error), error.retry_after)
        if seen:
            return self._refused("replayed", "this logout token was used before", told.issuer)
        return Answer(200, "", _HEADERS)

    def _act(self, told: EventToken) -> bool:
        """Do what a token says; return whether that was done before."""
        failure = None
        try:
            if self._once.was_seen(told.issuer, told.token_id):
                return True
        except StoreUnavailable as error:
            failure = error  # nobody goes on here for that
        whom = Whom(issuer=told.issuer, sid=told.session_id, subject=told.subject)
        # Last of all it is noted: who is interrupted before has it sent again.
        self._ending.end(whom, code="back_channel", before=told.issued_at)
        if failure is not None:
            raise failure
        return not self._once.first(told.issuer, told.token_id, told.until)

    def _refused(self, code: str, why: str, issuer: str = "") -> Answer:
        emit(SignOutRefused(at=self._ending.clock.wall(), issuer=issuer, code=code))
        body = {"error": "invalid_request", "error_description": why}
        return Answer(400, json.dumps(body), (("Content-Type", "application/json"), *_HEADERS))


#: Section 2.8.
_HEADERS = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


def untold(error: StoreUnavailable) -> str:
    """Return what is told to who has said something that every process was to hear."""
    if error.reason == Overloaded.code:
        return "too much waits to be done here"
    return "it holds here, and can't be told to every process"


def form_type(arrival: Arrival) -> str:
    """Return the content type of a request, without its parameters."""
    return arrival.header("content-type").partition(";")[0].strip().lower()


def _not_now(why: str, seconds: float | None) -> Answer:
    """Answer that it failed, as the specification has it: 400; and that it is worth another try."""
    body = {"error": "temporarily_unavailable", "error_description": why}
    retry = ("Retry-After", str(max(1, round(seconds or 5.0))))
    return Answer(400, json.dumps(body), (("Content-Type", "application/json"), retry, *_HEADERS))
