"""What a 401 to a token means, and what is done about it (G17, G22).

    ask ─▶ send ─┬─ anything but a 401 of an origin that got the token ─────────────────────────▶ the answer
                 └─ 401: is another token held by now? ─┬─ yes ───────────────────────────┐
                                                        ├─ claims challenge ─▶ ask with   │
                                                        │                      the claims ┤
                                                        └─ plain 401 ─▶ ask for a         │
                                                                        successor ────────┤
                             the answer ◀─ send once more, if the body is there ◀─ yes ◀──┤
                             the answer ◀────────────────────────────── none, the same ◀──┘

`BearerCall` decides; the flows of httpx, httpx2 and requests, and the pipeline, send.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import cachetools

from .._engine.acquire import wait_within
from .._engine.single_flight import Flights, Outcome, WaitFor
from .._engine.steps import Step, Steps
from .._policy.challenge import IN_VAIN_FOR, same_claims
from .._policy.subject import Subject, SubjectOf, check_subject, subject_now
from .._process import forks
from ..clock import Clock, SystemClock
from ..errors import ProviderUnavailable
from ..events import ApiRefusedToken, emit
from ..token import fingerprint
from .challenge import read as parse
from .source import TokenSource

__all__ = ["BearerCall", "BearerRules"]

_MOST_REMEMBERED = 1024
#: A first time by what had been got meanwhile, and then by what is asked for.
_REPLACED_AT_MOST = 2
_NEVER = float("inf")
_SYSTEM = SystemClock()


class _GetToken(NamedTuple):
    """The step that asks the credential, which may be anybody's and hang."""

    source: TokenSource
    #: Seconds that this may take.
    seconds: float
    claims: str | None = None
    #: The token that was refused, where the credential is to be told of it first.
    refused: str | None = None

    def run(self) -> str:
        """Ask on this thread."""
        with self._patience():
            if self.refused is not None:
                self.source.refused(self.refused, revoked=self.claims is not None)
            return self.source.token(self.claims)

    async def run_async(self) -> str:
        """Ask in this task."""
        try:
            with self._patience():
                async with asyncio.timeout(None if self.seconds == _NEVER else self.seconds) as limit:
                    if self.refused is not None:
                        await self.source.refused_async(self.refused, revoked=self.claims is not None)
                    return await self.source.token_async(self.claims)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self.source.too_late() from error

    def _patience(self) -> AbstractContextManager[None]:
        return nullcontext() if self.seconds == _NEVER else wait_within(lambda: self.seconds)


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.001), 3600.0)


class BearerRules:
    """Ask for tokens, and remember which ones were refused.

    What is remembered belongs to a token, or to the subject where the owner tells one: nobody's refusals are another's.
    """

    def __init__(self, source: TokenSource, *, clock: Clock = _SYSTEM, subject: SubjectOf | None = None) -> None:
        check_subject(subject)
        self._source = source
        self._clock = clock
        self._subject = subject
        self.after_fork()
        forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Make it usable in a forked child, whose parent may have been in the middle of changing it."""
        self._lock = threading.Lock()
        #: The refused tokens that are being replaced, by fingerprint.
        self._replacing = Flights(self._clock)
        #: What was asked for in place of which token, what came, and when; tokens by fingerprint.
        self._met: cachetools.LRUCache[tuple[str, str | None], tuple[str, float]]
        self._met = cachetools.LRUCache(_MOST_REMEMBERED)
        #: Until when nothing is asked for any more, since a successor was refused in the same way, or there was none.
        self._in_vain: cachetools.LRUCache[_Refusal, float] = cachetools.LRUCache(_MOST_REMEMBERED)

    def begin(self, origin: str, left: Callable[[], float] = lambda: _NEVER) -> Steps[BearerCall]:
        """Get a token for one request; begun on the caller's thread or in their task.

        Args:
            origin: The API's.
            left: Returns how many seconds the call may still take.

        Raises:
            TokenUnavailable: There is none.
        """
        forks.notice()
        subject = self._subject_now()
        try:
            token = yield _GetToken(self._source, left())
        except Exception as error:
            told = self._source.told(error)
            if told is None:
                raise
            raise told from told.__cause__
        return BearerCall(self, origin, left, subject, token)

    def sent(self, origin: str, token: str) -> BearerCall:
        """Return the call of a request that went out with a token which it had got before."""
        forks.notice()
        return BearerCall(self, origin, lambda: _NEVER, self._subject_now(), token)

    def _subject_now(self) -> Subject | None:
        return None if self._subject is None else subject_now(self._subject)

    def replace(self, call: BearerCall, claims: str | None, asked: str | None) -> Steps[str]:
        """Return the successor of a call's token, or that token where there is none.

        Of many requests that were on their way with it, one has it replaced, and the others wait for that.
        """
        source, refused = self._source, call.token
        name = fingerprint(refused)
        while True:
            seconds = _bounded(call.left())
            flight, mine = self._replacing.join((id(self), name), self._clock.monotonic() + seconds)
            if mine:
                break
            outcome: Outcome | None = yield WaitFor(flight, seconds)
            if outcome is None:
                raise source.too_late()
            if outcome.error is not None and (claims is None or asked == outcome.result):
                raise outcome.error
            if outcome.error is None and not outcome.refused:
                found: str = yield _GetToken(source, call.left())
                return found
        outcome = Outcome(refused=True)  # if this call is cancelled, or out of time, another one goes on
        try:
            token = refused
            if not call.decided or self.met(name, asked) is not None:
                # Somebody else may have had it replaced: what is held then hasn't been refused, and must stay.
                try:
                    token = yield _GetToken(source, call.left())
                except ProviderUnavailable:
                    raise
                except Exception:
                    # A refresh was denied meanwhile, and nothing is held: the denial of what names no claims isn't the
                    # answer to these, and would have the user sign in without them.
                    if claims is None:
                        raise
            if token == refused and (claims is not None or source.replaces):
                token = yield _GetToken(source, call.left(), claims, refused)
                with self._lock:
                    self._met[name, asked] = fingerprint(token), self._clock.monotonic()
        except Exception as error:
            if call.left() > 0:
                outcome = Outcome(error=error, result=asked)
            raise
        else:
            outcome = Outcome()
            return token
        finally:
            self._replacing.end(flight)
            flight.land(outcome)

    def met(self, name: str, asked: str | None) -> str | None:
        """Return which token has just come in place of one when that was asked for; both are named by fingerprint."""
        with self._lock:
            came, at = self._met.get((name, asked), (None, 0.0))
        return came if came is not None and self._clock.monotonic() - at < IN_VAIN_FOR else None

    def is_in_vain(self, refusal: _Refusal) -> bool:
        """Return whether a successor was refused in the same way a moment ago."""
        with self._lock:
            return self._clock.monotonic() < self._in_vain.get(refusal, -_NEVER)

    def note_in_vain(self, refusal: _Refusal) -> None:
        """Ask for nothing for a while: it isn't the token."""
        with self._lock:
            self._in_vain[refusal] = self._clock.monotonic() + IN_VAIN_FOR


#: The subject, or a token's fingerprint; the API's origin; the claims that it asked for, None for a plain 401.
_Refusal = tuple[Subject | str, str, str | None]


class BearerCall:
    """One request on its way: the token that it is sent with, and what its answers mean."""

    __slots__ = ("_met", "_origin", "_rules", "_subject", "decided", "left", "token")

    def __init__(
        self, rules: BearerRules, origin: str, left: Callable[[], float], subject: Subject | None, token: str
    ) -> None:
        self._rules = rules
        self._origin = origin
        self._subject = subject
        #: What its answers have asked for, and was asked for in turn.
        self._met: set[str | None] = set()
        #: How many of its answers had its token replaced.
        self.decided = 0
        #: Returns how many seconds the call may still take.
        self.left = left
        #: To be sent.
        self.token = token

    def go_on(self, challenges: Sequence[str], *, replayable: Callable[[], bool], read: Step) -> Steps[bool]:
        """Get another token where the answer wants that; return whether to send the request again, with it.

        Args:
            challenges: Those of a 401 to the token.
            replayable: Returns whether the request's body is there to be sent again.
            read: Reads the answer, which frees its connection while the provider is asked.

        Raises:
            TokenUnavailable: The API wants claims, and the provider gives no token with them.
        """
        rules, source, refused = self._rules, self._rules._source, self.token
        claims = parse(challenges)
        asked = None if claims is None else same_claims(claims)
        emit(ApiRefusedToken(at=rules._clock.wall(), target=self._origin, claims=claims is not None))
        if asked in self._met:
            rules.note_in_vain(self._refusal(asked))
            return False
        if self.decided == _REPLACED_AT_MOST or (claims is not None and not source.takes_claims):
            return False
        if rules.is_in_vain(self._refusal(asked)):
            return False
        again = replayable()
        if again:
            yield read
        try:
            self.token = yield from rules.replace(self, claims, asked)
        except Exception as error:
            told = source.told(error)
            # A plain 401 doesn't prove that the token is bad: where there is no other, that is the answer.
            if told is None:
                raise
            if claims is None or not again:
                return False
            raise told from told.__cause__
        self.decided += 1
        came = rules.met(fingerprint(refused), asked)
        if (claims is None and not source.replaces) or came == fingerprint(self.token):
            self._met.add(asked)
        if self.token == refused:
            rules.note_in_vain(self._refusal(asked))
            return False
        return again

    def _refusal(self, asked: str | None) -> _Refusal:
        return self._subject or fingerprint(self.token), self._origin, asked
