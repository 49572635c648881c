"""Receive security events by push (RFC 8935): what is believed is acted upon before it is answered.

    POST ─▶ the sender's bearer token ─▶ event token verified ─▶ seen before? ─▶ acted upon ─▶ noted ─▶ 202
               └ 400                         └ 400                 └ 202          └ not written: 503, to be sent again

What was received already is answered as it was the first time (section 2): who sends it again hasn't heard.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol

from ..._engine.steps import Steps
from ..._policy.checks import require, require_clock, require_function, require_number, require_path, require_store
from ...clock import Clock, SystemClock
from ...errors import ProviderUnavailable, StoreUnavailable, printable
from ...events import SecurityEventReceived, SignOutRefused, emit
from ...store import Store
from ...verify import InvalidToken, Revocations
from ...verify.security_events.rules import EventToken, security_event
from ...verify.security_events.tokens import AnyVerifier, EventTokens
from ..messages import Answer, Arrival, Route
from ..sessions.calls import StoreCall
from ..sign_out.back_channel import form_type, untold
from ..sign_out.ending import Ending, Once, Whom
from .meaning import Action, action_of, is_verification, told_at
from .subjects import UnusableSubject, subject_in, whom

__all__ = ["SignalsReceiver"]

_TYPE: Final = "application/secevent+jwt"
#: By why a token isn't believed: RFC 8935, section 2.4.
_ERRORS: Final = {
    "issuer": "invalid_issuer",
    "tenant": "invalid_issuer",
    "audience": "invalid_audience",
    "unknown_key": "invalid_key",
    "key": "invalid_key",
    "key_issuer": "invalid_key",
    "algorithm": "invalid_key",
    "denied": "invalid_key",
    "signature": "authentication_failed",
}


class _SignIn(Protocol):
    """What a framework's `SignIn` has."""

    engine: Any


class SignalsReceiver:
    """Receive Shared Signals: end sessions, drop tokens, and have access tokens refused, in every process.

    Mount it by `mount_signals` of your framework. Each process of a fleet has one.

    Args:
        verifier: A `ClaimsVerifier` whose issuer is the transmitter's, whose audience is what it puts into `aud`, and
            whose keys are the transmitter's (`jwks_uri=` where it has no discovery document).
        store: Where it is noted what was received; the same in all processes.
        sign_in: The application's `SignIn`, where it has sessions to end.
        revocations: What the verifiers of the application's APIs go by.
        applications: Further applications of MSAL's whose users' tokens are to go: those of an API that asks on
            behalf of its callers.
        speaks_for: Issuers of whose users the transmitter may tell; its own when not given. Nobody else's users are
            signed out, whatever it says.
        bearer: Tokens of which the transmitter must send one, where it was given one.
        path: Where it is.
        typed: Refuse tokens whose `typ` isn't `secevent+jwt`.
        oldest: Seconds after which an event isn't believed any more; it is remembered for so long that it was received.
        actions: What events mean, by their URI, where that isn't what we think: `end`, `tokens` or `nothing`.
        verified: Called with the `state` of a verification event; False has it refused.
        clock: Where the time comes from; for tests.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        verifier: AnyVerifier,
        *,
        store: Store,
        sign_in: _SignIn | None = None,
        revocations: Revocations | None = None,
        applications: Collection[Any] = (),
        speaks_for: Collection[str] = (),
        bearer: str | Collection[str] = (),
        path: str = "/signals",
        typed: bool = True,
        oldest: float = 7 * 24 * 3600.0,
        actions: Mapping[str, Action] | None = None,
        verified: Callable[[str | None], bool] | None = None,
        clock: Clock | None = None,
    ) -> None:
        require_number("oldest", oldest, low=300.0, high=90 * 24 * 3600.0)
        require_store(store)
        require(
            sign_in is not None or revocations is not None,
            "give sign_in=, where there are sessions to end, revocations=, where there are tokens to refuse, or both",
        )
        require(
            sign_in is None or hasattr(sign_in, "engine"),
            f"sign_in must be the application's SignIn(...), not {type(sign_in).__name__}",
        )
        require(
            revocations is None or isinstance(revocations, Revocations),
            f"revocations must be Revocations(...), not {type(revocations).__name__}",
        )
        require(isinstance(bearer, Collection), f"bearer must be a token, or several, not {type(bearer).__name__}")
        require(
            isinstance(applications, Collection) and not isinstance(applications, (str, bytes)),
            f"applications must be a collection of applications of MSAL's, not {type(applications).__name__}",
        )
        require(isinstance(typed, bool), f"typed must be True or False, not {typed!r}")
        require_clock(clock)
        if verified is not None:
            require_function("verified", verified, of="the state of a verification event")
        bearers = (bearer,) if isinstance(bearer, str) else tuple(bearer)
        require(all(isinstance(one, str) and len(one) >= 16 for one in bearers), "bearer must be 16 characters or more")
        require_path("path", path, "/signals")
        require(
            isinstance(speaks_for, Collection)
            and not isinstance(speaks_for, str)
            and all(isinstance(one, str) and one for one in speaks_for),
            f"speaks_for must be a collection of issuers, not {speaks_for!r}",
        )
        require(
            actions is None or isinstance(actions, Mapping),
            f"actions must be a mapping by the URIs of events, not {type(actions).__name__}",
        )
        require(
            all(action in ("end", "tokens", "nothing") for action in (actions or {}).values()),
            'actions must be "end", "tokens" or "nothing"',
        )
        self.path = path
        self._clock = clock or SystemClock()
        self._tokens = EventTokens(verifier, security_event(typed=typed, oldest=oldest))
        self._speaks_for = tuple(speaks_for)
        self._bearers = tuple(one.encode() for one in bearers)
        self._actions = dict(actions or {})
        self._verified = verified
        # What one application was told another one wasn't, though its stream have the same audience.
        whose = "" if sign_in is None else f"\n{sign_in.engine.site.application}"
        self._once = Once(store, self._clock, f"signals {' '.join(self._tokens.audiences)}{whose}")
        ending = Ending(self._clock) if sign_in is None else sign_in.engine.sign_out.ending
        self._ending = ending.also(revocations, applications)

    @property
    def route(self) -> Route:
        """Return the path that it answers."""
        return Route(self.path, ("POST",), self.handle, self.path[1:].replace("/", "_"))

    def handle(self, arrival: Arrival) -> Steps[Answer]:
        """Answer a request."""
        if not self._may_send(arrival):
            return self._refused("unauthorized", "authentication_failed", "the bearer token isn't the one")
        if form_type(arrival) != _TYPE:
            return self._refused("malformed", "invalid_request", f"send one event token as {_TYPE}")
        try:
            told: EventToken = yield from self._tokens.verifying(arrival.body.decode("latin-1").strip())
        except InvalidToken as error:
            return self._refused(error.code, _ERRORS.get(error.code, "invalid_request"), error.message)
        except ProviderUnavailable as error:
            return _not_now("its key is unavailable", error.retry_after)
        try:
            answer: Answer = yield StoreCall(lambda: self._act(told))
        except UnusableSubject as error:
            return self._refused("malformed", "invalid_request", f"its subject can't be used: {error}", told.issuer)
        except StoreUnavailable as error:
            return _not_now(untold(error), error.retry_after)
        return answer

    def _act(self, told: EventToken) -> Answer:
        """Do what a token says.

        Raises:
            StoreUnavailable: What was to be done holds in this process alone, so far.
            UnusableSubject: It can't be told whom it means.
        """
        failure = None
        try:
            if self._once.was_seen(told.issuer, told.token_id):
                return _ACCEPTED
        except StoreUnavailable as error:
            failure = error
        # Before anything is done: what is only half understood isn't half done.
        meant = [(event, payload, *self._meant(told, event, payload)) for event, payload in told.events.items()]
        for event, payload, action, people in meant:
            if is_verification(event):
                state = payload.get("state")
                if self._verified is not None and not self._verified(state if isinstance(state, str) else None):
                    return self._refused(
                        "malformed", "invalid_state", "this verification wasn't asked for", told.issuer
                    )
                self._tell(told, event, "verified", 0)
                continue
            count, before = 0, told_at(told.raw, payload, told.issued_at)
            for one in people:
                try:
                    alone = action == "tokens"
                    count += self._ending.end(one, code="security_event", before=before, tokens_alone=alone)
                except StoreUnavailable as error:
                    failure = error
            self._tell(told, event, action if people else "nothing", count)
        if failure is not None:
            raise failure
        self._once.first(told.issuer, told.token_id, told.until)
        return _ACCEPTED

    def _meant(self, told: EventToken, event: str, payload: Mapping[str, Any]) -> tuple[Action, tuple[Whom, ...]]:
        action = action_of(event, payload, self._actions)
        if action == "nothing":
            return action, ()
        return action, whom(subject_in(told.raw, payload), self._speaks_for or (told.issuer,))

    def _may_send(self, arrival: Arrival) -> bool:
        if not self._bearers:
            return True
        scheme, _, token = arrival.header("authorization").partition(" ")
        given = token.strip().encode("utf-8", "replace")
        # Each of them, so that the time tells nothing.
        found = [hmac.compare_digest(given, one) for one in self._bearers]
        return scheme.lower() == "bearer" and any(found)

    def _tell(self, told: EventToken, event: str, action: str, count: int) -> None:
        kind = printable(event.rstrip("/").rpartition("/")[2])[:60]
        emit(SecurityEventReceived(at=self._clock.wall(), issuer=told.issuer, kind=kind, action=action, count=count))

    def _refused(self, code: str, told: str, why: str, issuer: str = "") -> Answer:
        emit(SignOutRefused(at=self._clock.wall(), issuer=issuer, code=code))
        return _error(400, told, why)


_HEADERS: Final = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))
_ACCEPTED: Final = Answer(202, "", _HEADERS)


def _error(status: int, code: str, why: str, *headers: tuple[str, str]) -> Answer:
    body = json.dumps({"err": code, "description": why})
    return Answer(status, body, (("Content-Type", "application/json"), ("Content-Language", "en"), *headers, *_HEADERS))


def _not_now(why: str, seconds: float | None) -> Answer:
    return _error(503, "temporarily_unavailable", why, ("Retry-After", str(max(1, round(seconds or 5.0)))))
