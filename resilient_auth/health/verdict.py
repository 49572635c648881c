"""The verdict on a process, and why, in words that need no manual."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from .._engine.lanes import LaneStatus
from .._policy.blame.verdict import Blame
from .._policy.circuit.status import BreakerStatus
from .._policy.key_reports import KeysHealth
from .._process.credential_ends import CredentialEnd
from .._process.write_reports import WritesHealth
from .._store.gate import StoreStatus
from .standing import TokenHealth, Verdict, at_time, span

__all__ = ["WORDS", "Seen", "beside_stores", "judge"]

#: Seconds left of what can't be renewed, under which somebody should look: time enough to do something.
_AT_RISK: Final = 900.0
#: Seconds of a day; days ahead of a credential's end from which that is told, and from which it is trouble (G24).
_DAY, _WARN_AHEAD, _SOON = 86_400.0, 60, 7
#: Share of the writes that may wait, from which on somebody should look.
_NEARLY_FULL: Final = 0.8
_ORDER: Final[tuple[Verdict, ...]] = ("down", "at risk", "degraded", "ok")

#: Stores that are no word on the network.
_ON_THIS_HOST: Final = frozenset({"file", "memory"})
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
    blame: tuple[Blame, ...] = ()
    stores: tuple[StoreStatus, ...] = ()
    removals_pending: int = 0
    keys: tuple[KeysHealth, ...] = ()
    lanes: tuple[LaneStatus, ...] = ()
    credentials: tuple[CredentialEnd, ...] = ()
    writes: tuple[WritesHealth, ...] = ()


def judge(seen: Seen) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict, and its reasons with the worst first."""
    all_of_it = (*_of_providers(seen), *_of_keys(seen), *_of_others(seen), *_of_credentials(seen))
    found = sorted(all_of_it, key=lambda each: _ORDER.index(each[0]))
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
        about = tokens.get(authority, []), circuits.get(authority, [])
        yield from _of_provider(seen.at, authority, *about, _blamed(seen, authority))


def _of_provider(
    at: float, authority: str, tokens: list[TokenHealth], circuits: list[BreakerStatus], blame: Blame | None
) -> Iterator[tuple[Verdict, str]]:
    failing = [token for token in tokens if _fails(token)]
    broken = [circuit for circuit in circuits if circuit.state in ("open", "half-open")]
    if not failing and not broken:
        return
    since = min((each.failing_since for each in circuits if each.failing_since is not None), default=None)
    codes = [token.last_code for token in failing]
    codes += [circuit.last_code for circuit in circuits if circuit.failing_since is not None]
    what, advice = _said(next(filter(None, codes), None), blame)
    parts = [f"{authority} {_since(since)}{what}"]
    held = [token for token in tokens if token.in_use]
    if held:
        left = min(token.time_to_dark for token in held)
        parts.append(f"tokens last until {at_time(at + left)}" if left > 0 else "a token that is in use is gone")
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
        what, advice = _said(keys.last_code, _blamed(seen, keys.authority))
        # Keys that nobody has needed yet are no trouble.
        if keys.state == "none" and keys.failures:
            yield "down", f"no signing key of {keys.issuer} is held, and none can be fetched{what}; {advice}"
        elif keys.failures or keys.state == "stale":
            left = keys.time_to_dark
            lasts = "they stay" if left is None else f"they last until {at_time(seen.at + left)}"
            how = f"can't be renewed{what}" if keys.failures else "are due"
            tail = f"; {advice}" if keys.failures else ""
            yield _urgency(left if keys.failures else None), f"signing keys of {keys.issuer} {how}; {lasts}{tail}"


def _of_others(seen: Seen) -> Iterator[tuple[Verdict, str]]:
    for each in seen.breakers:
        if each.state == "isolated":
            held = [token.time_to_dark for token in seen.tokens if token.authority == each.whom and token.in_use]
            stopped = f"calls to {each.name} are stopped by isolate() since {at_time(each.since)}"
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
    for writes in seen.writes:
        if writes.dead:
            yield "degraded", f"{writes.dead} writes of {writes.name} were given up; look at their dead_letters()"
        if writes.pending >= _NEARLY_FULL * writes.most:
            full = f"{writes.pending} of {writes.most} writes of {writes.name} wait{_said(writes.last_code)[0]}"
            yield "degraded", f"{full}; when there is no room, callouts answer by default"
    if seen.removals_pending:
        yield "degraded", f"{seen.removals_pending} sign-outs aren't in a store yet; they are written when it works"


def _of_credentials(seen: Seen) -> Iterator[tuple[Verdict, str]]:
    for end in sorted(seen.credentials, key=lambda end: end.at):
        whose = f"the {end.credential} of application {end.client_id}"
        days = int(end.remaining // _DAY)
        if end.remaining <= 0:
            yield "at risk", f"{whose} has ended, and no token is had with it; replace it now"
        elif days < _WARN_AHEAD:
            verdict: Verdict = "degraded" if days < _SOON else "ok"
            yield verdict, f"{whose} ends in {days} day{'' if days == 1 else 's'}; replace it before"


def _urgency(left: float | None) -> Verdict:
    if left is None or left > _AT_RISK:
        return "degraded"
    return "at risk" if left > 0 else "down"


def _blamed(seen: Seen, authority: str) -> Blame | None:
    """Find who is to blame for what fails at an authority, where that can be told and is everybody's."""
    blamed = (each for each in seen.blame if each.authority == authority and not each.client_id)
    return next((each for each in blamed if each.what != "unknown"), None)


def _said(code: str | None, blame: Blame | None = None) -> tuple[str, str]:
    """Return what a code means, in brackets, and what there is to do."""
    if code is None:
        return "", blame.advice if blame is not None else _WAIT
    what, advice = WORDS.get(code, (code.replace("_", " "), "what the code means is on the page of errors"))
    return f" ({what})", advice if blame is None else blame.advice


def beside_stores(blame: Blame, stores: Iterable[StoreStatus]) -> Blame:
    """Return a blame with what stores on other hosts say of the network, as evidence: it changes no verdict."""
    if blame.what not in ("network", "provider", "unknown"):
        return blame
    told = tuple(
        f"the {each.target} store {'works' if each.state == 'ok' else f'fails too ({each.last_code})'}"
        for each in stores
        if each.target not in _ON_THIS_HOST and each.state in ("ok", "failing", "unavailable")
    )
    return replace(blame, evidence=(*blame.evidence, *told)) if told else blame


def _since(at: float | None) -> str:
    return "fails" if at is None else f"has failed since {at_time(at)}"
