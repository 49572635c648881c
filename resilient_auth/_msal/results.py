"""What a call gives: a token of what MSAL returned or has in its cache, and the answer of a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._engine.acquire import Served, Source
from .._policy.freshness import MSAL_MARGIN
from .._wire.exchange_context import ExchangeContext
from ..errors import ProviderUnavailable
from ..token import Token
from .session import Session
from .token_cache import ACCESS_TOKEN

__all__ = ["answer", "from_cache", "holds", "read", "token_from"]

#: No life of a token and no time of this era has as many; NaN and the infinities don't lie below it either.
_MOST_SECONDS = 1e11


def read(session: Session, cache: Any, scopes: tuple[str, ...], query: dict[str, Any]) -> Token | None:
    """Find a valid access token in MSAL's cache, the last 300 seconds of its life included.

    Args:
        session: Tells what is the application's: MSAL's conditions can't tell all that there is.
        cache: MSAL's.
        scopes: That it must be good for.
        query: MSAL's other conditions.
    """
    wall, now = session.engine.clock.wall(), session.engine.clock.monotonic()
    best: dict[str, Any] | None = None
    # MSAL deletes expired entries in passing unless told that now is 0. It holds its lock until the search is closed;
    # its first find costs the same however many users there are, all others cost more with each of them.
    found = cache.search(ACCESS_TOKEN, target=list(scopes), query=query, now=0)
    try:
        for entry in found:
            # MSAL would serve a token that is bound to a key to who asked for none.
            if not session.owns(ACCESS_TOKEN, entry) or ("key_id" in entry and "key_id" not in query):
                continue
            if best is None or int(entry["expires_on"]) > int(best["expires_on"]):
                best = entry
            if int(entry["expires_on"]) - wall >= MSAL_MARGIN:
                break
    finally:
        close = getattr(found, "close", None)
        if close is not None:
            close()
    if best is None:
        return None
    life = int(best["expires_on"]) - wall
    if life <= 0:
        return None
    if "cached_at" in best:
        # A wall clock that was set back since makes no token live longer than it was given for.
        life = min(life, max(1, int(best["expires_on"]) - int(best["cached_at"])))
    refresh_on = int(best["refresh_on"]) if "refresh_on" in best else None
    if refresh_on is None and "cached_at" in best:
        # Half of the whole life, not of what is left of it.
        whole = int(best["expires_on"]) - int(best["cached_at"])
        due_after = max(0.0, session.due(whole, None) - (whole - life))
    else:
        due_after = max(0.0, min(life, refresh_on - wall)) if refresh_on is not None else session.due(life, None)
    return Token(
        secret=best["secret"],
        token_type=best.get("token_type", "Bearer"),
        obtained_on=wall,
        obtained_at=now,
        life=life,
        due_after=due_after,
        refresh_on=refresh_on,
    )


def holds(cache: Any, token: Token, subject: str | None) -> bool:
    """Return whether a token is still in MSAL's cache, over by the wall clock or not."""
    found = list(cache.search(ACCESS_TOKEN, query={"home_account_id": subject}, now=0))
    return any(entry.get("secret") == token.secret for entry in found)


def token_from(
    session: Session,
    result: Mapping[str, Any],
    response: Mapping[str, Any],
    exchange_context: ExchangeContext,
    *,
    extras: bool = False,
) -> Token | None:
    """Make a token of what MSAL returned and what the provider had answered.

    Its life is counted from when the request went out: the provider counts from a moment after that.
    """
    if "access_token" not in result:
        return None
    clock = session.engine.clock
    sent_on = clock.wall() if exchange_context.sent_on is None else exchange_context.sent_on
    sent_at = clock.monotonic() if exchange_context.sent_at is None else exchange_context.sent_at
    life = _seconds(result.get("expires_in"))
    if life is None:
        life = _seconds(response.get("expires_in"))
    if life is None:
        ends = _seconds(response.get("expires_on"))
        life = max(0.0, ends - sent_on) if ends else None
    life = 600.0 if life is None else life  # as MSAL assumes (RFC 6749, section 5.1)
    refresh_in = _seconds(response.get("refresh_in")) if "refresh_in" in response else None
    refresh_on = _seconds(result.get("refresh_on")) if "refresh_on" in result else None
    if refresh_in is None and refresh_on is not None:
        refresh_in = max(0.0, refresh_on - clock.wall())
    return Token(
        secret=str(result["access_token"]),
        token_type=str(result.get("token_type", "Bearer")),
        obtained_on=sent_on,
        obtained_at=sent_at,
        life=life,
        due_after=session.due(life, refresh_in),
        refresh_on=None if refresh_on is None else int(refresh_on),
        extras={k: v for k, v in result.items() if k != "refresh_token"} if extras else {},
    )


def answer(session: Session, served: Served) -> Any:
    """Return what the caller is given: the provider's own answer, or what is held, marked with why it is served."""
    token = served.token
    if served.source is Source.IDENTITY_PROVIDER:
        given = dict(served.result) if isinstance(served.result, Mapping) else served.result
        if session.settings.explain and isinstance(given, dict):
            given["resilience"] = _explained(session, served)
        return given
    assert token is not None  # noqa: S101 - only the provider's own answers come without
    clock = session.engine.clock
    wall, now = clock.wall(), clock.monotonic()
    answer = from_cache(token)
    answer["expires_in"] = max(0, int(token.remaining(wall, now)))
    answer["token_source"] = served.source.value
    if session.settings.explain:
        answer["resilience"] = _explained(session, served)
    elif served.reason is not None:
        answer["resilience"] = _why(session, served)
    return answer


def _why(session: Session, served: Served) -> dict[str, Any]:
    """Return why it is served, how old it is, and what is known of the provider."""
    token, clock = served.token, session.engine.clock
    wall, now = clock.wall(), clock.monotonic()
    return {
        "reason": served.reason,
        "age": None if token is None else round(token.age(wall, now), 3),
        "remaining": None if token is None else round(token.remaining(wall, now), 3),
        "provider": _what_is_known(served.error),
    }


def _explained(session: Session, served: Served) -> dict[str, Any]:
    """Return that, and where it came from and where the time went of the exchange that was waited for."""
    flight = served.flight
    spent = (0.0, 0.0, 0.0) if flight is None else (flight.in_queue, flight.in_store, flight.in_http)
    queue, store, http = (round(seconds * 1e3, 3) for seconds in spent)
    return _why(session, served) | {
        "source": served.whence,
        "attempts": 0 if flight is None else flight.attempts,
        "queue_ms": queue,
        "store_ms": store,
        "http_ms": http,
    }


def from_cache(token: Token) -> dict[str, Any]:
    """Return the answer that a held token is, as MSAL gives it."""
    answer = {
        **token.extras,
        "access_token": token.secret,
        "token_type": token.token_type,
        "expires_in": 0,
        "token_source": Source.CACHE.value,
    }
    if token.refresh_on is not None:
        answer["refresh_on"] = token.refresh_on
    return answer


def _what_is_known(error: ProviderUnavailable | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {"code": error.code, "detail": error.message, "retry_after": error.retry_after}


def _seconds(value: object) -> float | None:
    """Read a number of seconds that somebody's broker or client may have made up; None for what can't be one."""
    try:
        seconds = None if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, seconds) if seconds is not None and abs(seconds) < _MOST_SECONDS else None
