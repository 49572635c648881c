"""How a call is carried out: planned as an acquisition, carried out step by step, and finished as an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._engine.acquire import Acquisition, Served, acquiring, asking_once
from .._engine.cache import CacheEntry
from .._engine.single_flight import Exchange, Flight, Outcome
from .._engine.steps import Steps, run
from .._engine.threads import OnThread
from .._policy.endpoint import Endpoint
from .._policy.failure import Purpose
from .._process import forks, observing
from .._wire.exchange_context import ExchangeContext
from ..errors import Closed, ConfigurationError, ProviderUnavailable
from ..token import Token, TokenRequest, fingerprint
from . import results
from .session import Session

__all__ = ["Hit", "Plan", "plan_once", "plan_token"]


class Hit:
    """An answer made ready, good until a refresh is due on either clock and while the cache is the same one."""

    __slots__ = ("answer", "cache", "due_at", "due_on", "expires_at", "given")

    def __init__(self, token: Token, answer: dict[str, Any], cache: Any, given: observing.Count | None) -> None:
        self.answer = answer
        self.cache = cache
        #: How often it was given; None where nobody observes this process.
        self.given = given
        self.due_on = token.obtained_on + token.due_after
        self.due_at = token.obtained_at + token.due_after
        self.expires_at = token.obtained_at + token.life


@dataclass(slots=True)
class Plan:
    """How one call is carried out: the acquisition, then `finish`."""

    acquisition: Acquisition
    finish: Callable[[Served], Any]
    #: With what the acquisition begins; it may read a file.
    load: Callable[[], None] | None = None
    entry: CacheEntry | None = None
    #: Tells after a failure whether MSAL would have answered without asking: there is nothing to ask with.
    moot: Callable[[], bool] | None = None

    def run(self) -> dict[str, Any]:
        """Carry it out on this thread; only a silent flow may end without a dict, and says so itself."""
        answer: dict[str, Any] = run(self.steps())
        return answer

    def steps(self) -> Steps[Any]:
        """Take the call through; ends with MSAL's kind of answer."""
        try:
            return self.finish((yield from self.acquisition))
        except ProviderUnavailable:
            if self.moot is None or not (yield OnThread(self.moot)):
                raise
            return None


def plan_token(
    session: Session,
    request: TokenRequest,
    authorities: tuple[Endpoint, ...],
    exchange_for: Callable[[CacheEntry], Exchange],
    *,
    repeatable: bool,
    read: Callable[[Any], Token | None] | None,
    discard: Callable[[Token], None] | None = None,
    purpose: Purpose = Purpose.TOKEN,
    signature: Any = None,
    claims: str | None = None,
    force: bool = False,
    silent: bool = False,
) -> Plan:
    """Plan one call that wants a token which may be held.

    Args:
        session: The application's.
        request: What is wanted.
        authorities: The endpoints that can give it.
        exchange_for: Makes the way to ask.
        repeatable: Whether it may be asked again with nobody calling.
        read: How to find the token in MSAL's cache.
        discard: How to take one out of it that must not be served any more.
        purpose: Whose breaker holds.
        signature: The call, if it may be answered from memory without more ado next time.
        claims: A claims challenge.
        force: Don't serve what is held.
        silent: A denial is None and not an error dict.
    """
    if session.closed:
        raise Closed("this application object was closed: make a new one, or close it later")
    if claims is not None and not isinstance(claims, str):
        raise ConfigurationError(f"claims_challenge must be the JSON text of a challenge, not {type(claims).__name__}")
    cache = session.look_at_cache()
    entry = session.memory.entry(request, authorities, purpose)
    exchange = exchange_for(entry)
    if read is not None and session.shared_cache is not None:
        entry.read = lambda: read(session.look_at_cache())
    if entry.discard is None:
        entry.discard = discard
    if repeatable and entry.renew is None:
        entry.renew = exchange

    def load() -> None:
        if read is None or (entry.token is not None and session.reading.recent):
            return
        held = entry.token
        missing = False
        try:
            token = read(cache)
            if token is None and held not in (None, entry.unkept) and not session.watchable and not held.extras:
                missing = not results.holds(cache, held, request.subject)
        except Exception as error:  # noqa: BLE001 - a class of the owner's may raise anything
            session.reading.began(error)
            return
        if session.reading.since is not None:
            session.reading.ended()
        if token is not None and entry.refused is not None and fingerprint(token.secret) == entry.refused:
            token = None
        if token is not None and (held is None or held.secret != token.secret):
            session.memory.put(entry, token)
            if session.shared_cache is not None:
                session.shared_cache.note_token(request, token)
        elif missing and held is not None:
            session.memory.drop_token(entry, held, "removed_elsewhere")

    def finish(served: Served) -> Any:
        answer = results.answer(session, served)
        token = served.token
        # What is explained is made anew each time.
        repeats = served.reason is None and session.watchable and not session.settings.explain
        if signature is not None and token is not None and repeats:
            observer = observing.observer
            given = None if observer is None else observer.served("token", request=request)
            session.memory.remember_hit(entry, token, signature, Hit(token, results.from_cache(token), cache, given))
        return None if silent and answer is not None and "error" in answer else answer

    must_load = read is not None and not (claims or force) and (entry.token is None or not session.watchable)
    loading = load if must_load else None
    acquisition = acquiring(session.engine, entry, exchange, load=loading, claims=claims, force=force)
    if observing.observer is not None:
        acquisition = observing.observer.through(
            "acquisition", acquisition, request=request, clock=session.engine.clock
        )
    return Plan(acquisition, finish, loading, entry)


def plan_once(
    session: Session, authorities: tuple[Endpoint, ...], client_id: str, subject: str | None, ask: Callable[[], Any]
) -> Plan:
    """Plan one exchange whose result is nobody else's: a code's, a password's, somebody's refresh token's."""
    forks.notice()
    if session.closed:
        raise Closed("this application object was closed: make a new one, or close it later")

    def exchange(flight: Flight) -> Outcome:
        with ExchangeContext(deadline=flight.deadline, subject=subject).under_way(), session.saved():
            return Outcome(result=ask())

    acquisition = asking_once(session.engine, authorities, client_id, subject, exchange, session.memory.lane)
    if observing.observer is not None:
        acquisition = observing.observer.through("acquisition", acquisition, endpoint=authorities[0])
    return Plan(acquisition, lambda served: served.result)
