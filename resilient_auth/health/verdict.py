"""The verdict on a process, and why, in words that need no manual."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from .._engine.lanes import LaneStatus
from .._policy.circuit.status import BreakerStatus
from .._policy.key_reports import KeysHealth
from .._store.gate import StoreStatus
from .standing import TokenHealth, Verdict, span

__all__ = ["WORDS", "Seen", "judge"]

#: Seconds left of what can't be renewed, under which somebody should look: time enough to do something.
_AT_RISK: Final = 900.0
_ORDER: Final[tuple[Verdict, ...]] = ("down", "at risk", "degraded", "ok")

_WAIT: Final = "nothing to do on your side"
#: By an error's code: what happens, and what there is to do.
WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "connection_failed": ("connections to it fail", "nothing to do on your side, if the network is up"),
    "name_not_resolved": ("its name can't be resolved", "look at this machine's DNS"),
    "tls_failed": ("no trusted TLS connection", "look at the trust store: resilient-auth doctor says more"),
    "attempt_timeout": ("no answer in time", _WAIT),
    "server_failed": ("server errors", _WAIT),
    "throttled": ("it throttles this application", "ask less, or wait"),
    "malformed_answer": ("answers that aren't its own", "look for a captive portal, or a proxy that inspects"),
    "local_resources": ("this process has no file descriptor or memory left", "raise its limits, or restart it"),
    "overloaded": ("too many requests wait here", "look at what asks so much"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that a verdict is made of."""

    #: The wall time.
    at: float
    tokens: tuple[TokenHealth, ...] = ()
    breakers: tuple[BreakerStatus, ...] = ()
    stores: tuple[StoreStatus, ...] = ()
    removals_pending: int = 0
    keys: tuple[KeysHealth, ...] = ()
    lanes: tuple[LaneStatus, ...] = ()


def judge(seen: Seen) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict, and its reasons with the worst first."""
    found = sorted((*_of_providers(seen), *_of_keys(seen), *_of_others(seen)), key=lambda each: _ORDER.index(each[0]))
    return (found[0][0] if found else "ok"), tuple(reason for _, reason in found)


def _of_providers(seen: Seen) -> Iterator[tuple[Verdict, str]]:
    """Judge each authority by its breakers and by the tokens that come from there."""
    tokens: dict[str, list[TokenHealth]] = {}
    circuits: dict[str, list[BreakerStatus]] = {}
    for token in seen.tokens:
        tokens.setdefault(token.authority, []).append(token)
    for circuit in seen.breakers:
        circuits.setdefault(circuit.authority, []).append(circuit)
    for authority in sorted(filter(None, {*tokens, *circuits})):
        yield from _of_provider(seen.at, authority, tokens.get(authority, []), circuits.get(authority, []))


def _of_provider(
    at: float, authority: str, tokens: list[TokenHealth], circuits: list[BreakerStatus]
) -> Iterator[tuple[Verdict, str]]:
    failing = [token for token in tokens if _fails(token)]
    broken = [circuit for circuit in circuits if circuit.state in ("open", "half-open")]
    if not failing and not broken:
        return
    since = min((each.failing_since for each in circuits if each.failing_since is not None), default=None)
    codes = [token.last_code for token in failing]
    codes += [circuit.last_code for circuit in circuits if circuit.failing_since is not None]
    what, advice = _said(next(filter(None, codes), None))
    parts = [f"{authority} {_since(since)}{what}"]
    held = [token for token in tokens if token.in_use]
    if held:
        left = min(token.time_to_dark for token in held)
        parts.append(f"tokens last until {_time(at + left)}" if left > 0 else "a token that is in use is gone")
    probes = [circuit.retry_after for circuit in broken if circuit.retry_after is not None]
    if probes:
        parts.append(f"next probe in {span(min(probes))}")
    # What a breaker around the whole provider keeps from being renewed counts with what failed.
    shut = any(not circuit.part for circuit in broken)
    ends = [token.time_to_dark for token in held if shut or _fails(token)]
    yield _urgency(min(ends, default=None)), "; ".join((*parts, advice))


def _fails(token: TokenHealth) -> bool:
    # One that was asked for and isn't there is a failure, however it came to be.
    return bool(token.failures) or (token.in_use and token.time_to_dark <= 0)


def _of_keys(seen: Seen) -> Iterator[tuple[Verdict, str]]:
    for keys in seen.keys:
        what, advice = _said(keys.last_code)
        # Keys that nobody has needed yet are no trouble.
        if keys.state == "none" and keys.failures:
            yield "down", f"no signing key of {keys.issuer} is held, and none can be fetched{what}; {advice}"
        elif keys.failures or keys.state == "stale":
            left = keys.time_to_dark
            lasts = "they stay" if left is None else f"they last until {_time(seen.at + left)}"
            how = f"can't be renewed{what}" if keys.failures else "are due"
            tail = f"; {advice}" if keys.failures else ""
            yield _urgency(left if keys.failures else None), f"signing keys of {keys.issuer} {how}; {lasts}{tail}"


def _of_others(seen: Seen) -> Iterator[tuple[Verdict, str]]:
    for each in seen.breakers:
        if each.state == "isolated":
            held = [token.time_to_dark for token in seen.tokens if token.authority == each.whom and token.in_use]
            stopped = f"calls to {each.name} are stopped by isolate() since {_time(each.since)}"
            yield _urgency(min(held, default=None)), f"{stopped}; reset() lets them through"
        elif each.state != "closed" and not each.authority:
            probe = "" if each.retry_after is None else f"; next probe in {span(each.retry_after)}"
            yield "degraded", f"{each.name} {_since(each.failing_since)}{_said(each.last_code)[0]}{probe}"
    for store in seen.stores:
        if store.state != "ok":
            why = f" ({store.last_code})" if store.last_code else ""
            yield (
                "degraded",
                f"the {store.target} store is {store.state.replace('_', '-')}{why}; tokens come from memory",
            )
    for lane in seen.lanes:
        if lane.overdue:
            yield "degraded", f"{lane.overdue} calls at {lane.name} hang; look at functions of yours that they call"
    if seen.removals_pending:
        yield "degraded", f"{seen.removals_pending} sign-outs aren't in a store yet; they are written when it works"


def _urgency(left: float | None) -> Verdict:
    if left is None or left > _AT_RISK:
        return "degraded"
    return "at risk" if left > 0 else "down"


def _said(code: str | None) -> tuple[str, str]:
    """Return what a code means, in brackets, and what there is to do."""
    if code is None:
        return "", _WAIT
    what, advice = WORDS.get(code, (code.replace("_", " "), "what the code means is on the page of errors"))
    return f" ({what})", advice


def _since(at: float | None) -> str:
    return "fails" if at is None else f"has failed since {_time(at)}"


def _time(at: float) -> str:
    try:
        return f"{datetime.fromtimestamp(at, UTC):%H:%M} UTC"
    except (OverflowError, ValueError, OSError):  # a provider said so
        return "the end of time"
