"""One question to a claims service, from the claims to the decision, step by step for the drivers of `_engine.steps`.

ask ──┬─ a decision ─────────────────────────────────────────────▶ the service's
      ├─ another 3xx or 4xx, or no token to ask with ────────────▶ denied: the service is up, and set up wrongly
      └─ no answer, 429, 5xx, or no decision ─┬─ deny ───────────▶ denied, with a message for the user
                                              ├─ last_decision ──▶ what the service said before, or denied
                                              └─ reduced ────────▶ what the owner's function says
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import httpx
import requests

from .._engine.steps import Invoke, Steps
from .._policy.checks import require
from .._policy.failure import retry_after_of
from .._process.resources import exhausted
from ..downstream import ApiAnsweredError, ApiAttemptTimeout, ApiUnavailable, TokenUnavailable
from ..errors import ConfigurationError, LocalResourcesExhausted, ProviderUnavailable, TokenDenied
from ..events import ClaimsServiceRefused, DecisionSubstituted, emit
from ..verify.claims import Claims
from .decision import Decision, MalformedDecision, Unavailable, read_answer, shaped
from .last_decisions import LastDecisions

__all__ = ["MOST_ANSWER", "Rules", "ServiceAnswer"]

#: Bytes of an answer, at most: a decision needs less, and the last ones of many users are kept.
MOST_ANSWER = 16 * 1024
_MOST_QUESTION = 64 * 1024
_REFUSED_MESSAGE = "This can't be checked right now. Please contact support."


class ServiceAnswer(NamedTuple):
    """What the service answered."""

    status: int
    #: Looked up by lower-case names.
    headers: Mapping[str, str]
    #: None for one that is too long, or in an encoding that wasn't asked for.
    body: bytes | None

    @staticmethod
    def may_decide(status: int) -> bool:
        """Return whether an answer with this status can be a decision."""
        return status == 200 or (400 <= status < 500 and not ServiceAnswer.is_failure(status))

    @staticmethod
    def is_failure(status: int) -> bool:
        """Return whether this status is the service's failure."""
        return status in (408, 429) or status >= 500


class _Body(NamedTuple):
    body: bytes
    #: Digests; no subject where the claims name none, or nothing is kept.
    subject: bytes | None
    digest: bytes
    #: Its place in the order of calls.
    began: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Decide about every question to one service; see `RemoteClaimsVerifier` for the arguments."""

    origin: str
    sends: tuple[str, ...]
    request: Callable[[Any], Mapping[str, Any]] | None
    parse: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None
    reduced: Callable[[Any, Unavailable], Any] | None
    last: LastDecisions | None
    wall: Callable[[], float]

    def steps(self, claims: Any, ask: Callable[[bytes], Any]) -> Steps[Decision]:
        """Take one question through.

        Args:
            claims: What it is about.
            ask: Sends a question; returns a `ServiceAnswer`, to be awaited in tasks.
        """
        question = self._question(claims)
        try:
            answer: ServiceAnswer = yield Invoke(partial(ask, question.body))
            outcome = self._judge(answer, question)
        except (TokenUnavailable, TokenDenied) as error:
            # What a credential raises is both: what it is, and that there is no token.
            outage = isinstance(error, (OSError, httpx.NetworkError, httpx.TimeoutException))
            told = f"the credential gave no token ({error.code})"
            outcome = _explained(error) if outage else self._refused(0, told)
        except (httpx.TransportError, requests.RequestException) as error:
            outcome = _explained(error)
        except MalformedDecision as error:
            outcome = Unavailable(
                code="malformed_decision",
                detail=f"{self.origin} answered with no decision: {error}",
                user_message=ApiAnsweredError("").user_message,
            )
        if isinstance(outcome, Decision):
            return outcome
        if self.reduced is not None:
            made = yield Invoke(partial(self.reduced, claims, outcome))
            return self._substituted(_owners(made), "reduced", outcome)
        # A last decision is for outages of the service's: where nothing could be asked, none is seen.
        if self.last is not None and question.subject is not None and outcome.code != LocalResourcesExhausted.code:
            found = self.last.find(question.subject, question.digest)
            if found is not None:
                return self._substituted(found[0], "last_decision", outcome, found[1])
        return self._substituted(Decision(allowed=False, reason=outcome.user_message), "denied", outcome)

    def _question(self, claims: Any) -> _Body:
        members = _members(claims)
        if self.request is not None:
            body: Any = self.request(claims)
            require(isinstance(body, Mapping), f"request must return a mapping, not {type(body).__name__}")
        else:
            body = {name: members[name] for name in self.sends if name in members}
        try:
            text = json.dumps(dict(body), sort_keys=True, allow_nan=False, separators=(",", ":"), default=_plain)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"the question to {self.origin} isn't JSON: {type(error).__name__}") from None
        encoded = text.encode()
        require(
            len(encoded) <= _MOST_QUESTION,
            f"the question to {self.origin} has {len(encoded)} bytes, more than {_MOST_QUESTION}: send fewer claims",
        )
        if self.last is None:
            return _Body(encoded, None, b"", 0)
        subject = [members.get("iss"), claims.subject if isinstance(claims, Claims) else members.get("sub")]
        named = all(isinstance(part, str) and part for part in subject)
        # An application without a `sub` goes by its client id: that is nobody's subject but its own.
        subject.append(isinstance(claims, Claims) and claims.app_only)
        return _Body(
            encoded,
            hashlib.sha256(json.dumps(subject).encode()).digest() if named else None,
            hashlib.sha256(encoded).digest(),
            self.last.begin(),
        )

    def _judge(self, answer: ServiceAnswer, question: _Body) -> Decision | Unavailable:
        status = answer.status
        if answer.is_failure(status):
            seconds = retry_after_of(answer.headers, self.wall())
            return _explained(
                ApiAnsweredError(f"{self.origin} answered {status}", origin=self.origin, retry_after=seconds or None)
            )
        if not answer.may_decide(status):
            if status < 300:
                raise MalformedDecision(f"its status is {status}")
            return self._refused(status, "it moved: name its new address", question)
        try:
            if answer.body is None:
                raise MalformedDecision(f"it is longer than {MOST_ANSWER} bytes, or encoded")  # noqa: TRY301
            decision = read_answer(answer.body, self.parse)
        except MalformedDecision as error:
            if status == 200:
                raise
            return self._refused(status, str(error), question)
        if status != 200 and decision.allowed:
            return self._refused(status, "it allows, with a status that denies", question)
        decision = replace(decision, decided_at=self.wall())
        if self.last is not None and question.subject is not None:
            self.last.keep(question.subject, question.digest, decision, question.began)
        return decision

    def _refused(self, status: int, detail: str, question: _Body | None = None) -> Decision:
        """Deny, since the service or the provider said no to us. That is no outage, and nothing stands in for it."""
        # A bare 403 may be a no to the user; 401 is about the credential.
        if self.last is not None and question is not None and question.subject is not None and status != 401:
            self.last.refuse(question.subject)
        emit(ClaimsServiceRefused(at=self.wall(), target=self.origin, status=status, detail=detail))
        return Decision(
            allowed=False,
            reason=_REFUSED_MESSAGE,
            provenance="denied",
            code="claims_service_refused",
            decided_at=self.wall(),
        )

    def _substituted(
        self,
        decision: Decision,
        provenance: Literal["last_decision", "reduced", "denied"],
        unavailable: Unavailable,
        age: float = 0.0,
    ) -> Decision:
        emit(
            DecisionSubstituted(
                at=self.wall(),
                target=self.origin,
                provenance=provenance,
                allowed=decision.allowed,
                code=unavailable.code,
                age=age,
            )
        )
        return replace(
            decision,
            provenance=provenance,
            code=unavailable.code,
            age=age,
            decided_at=decision.decided_at if provenance == "last_decision" else self.wall(),
            retry_after=unavailable.retry_after,
        )


def _owners(made: object) -> Decision:
    if isinstance(made, Decision):
        return made
    try:
        return shaped(made)
    except MalformedDecision as error:
        raise ConfigurationError(f"what reduced returned is no decision: {error}") from None


def _explained(error: Exception) -> Unavailable:
    """Return what kind of failure it was, to the owner's function and to the user (G20)."""
    if isinstance(error, ApiUnavailable):
        told = error
    elif isinstance(error, ProviderUnavailable):
        told = ApiUnavailable(f"no token to ask with: {error}", retry_after=error.retry_after)
    else:
        kind = ApiAttemptTimeout if isinstance(error, (httpx.TimeoutException, requests.Timeout)) else ApiUnavailable
        told = kind(type(error).__name__)
    code = error.code if isinstance(error, ProviderUnavailable) else told.code
    return Unavailable(
        code=LocalResourcesExhausted.code if exhausted(error) else code,
        detail=told.message,
        user_message=told.user_message,
        retry_after=told.retry_after,
    )


def _members(claims: Any) -> Mapping[str, Any]:
    members = claims if isinstance(claims, Mapping) else getattr(claims, "raw", None)
    if not isinstance(members, Mapping):
        raise ConfigurationError(f"claims must be Claims or a mapping, not {type(claims).__name__}")
    return members


def _plain(value: object) -> Any:
    """Write what is immutable, as verified claims are, as JSON."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    raise TypeError(type(value).__name__)
