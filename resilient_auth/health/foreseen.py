"""If the providers died now: what goes dark when, and what would lengthen that most. Pure, with all it needs given.

Dead means that no connection can be made to them. Who is served from a fresh token is taken to go on asking, and so is
who has asked for another one lately; what is pinned is asked for by its timer.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from .._policy.fallback import FallbackOptions
from .._policy.key_reports import KeysHealth
from .._process.session_ends import SessionEnds
from .wording import as_json, at_time, span

__all__ = ["Advice", "Forecast", "GoesDark", "Holding", "foresee"]

#: So many parts are told, those that go dark first; a forecast stays readable.
_MOST_PARTS: Final = 50
#: Seconds that a change must gain to be worth telling of.
_WORTH: Final = 60.0
#: The grace that is weighed for those who have none: as long as an hour's token.
_GRACE: Final = FallbackOptions(grace=3600.0, grace_outage=7200.0)
#: Seconds of the extension that is weighed for sessions that have none: that of sign-in by default.
_EXTENSION: Final = 4 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A token that is held, as far as its end is reckoned from it; all times are seconds from now, or lengths."""

    authority: str
    tenant: str
    client_id: str
    flow: str
    scopes: tuple[str, ...]
    #: Whether it is a user's: those with the same scopes are one population.
    users: bool
    pinned: bool
    #: Until its end, in memory or in the store, whichever is later; 0 where nothing is held.
    left: float
    #: Its age, and at which age it is due for a refresh.
    age: float = 0.0
    due_after: float = math.inf
    #: Until its provider is asked for it next; None where nobody does.
    asked_in: float | None = None
    #: What fails together, and for how long that has failed already; None where it hasn't.
    site: Hashable = None
    failing_for: float | None = None
    #: What may be served past its end; None where that is out of the question.
    grace: FallbackOptions | None = None
    #: Whether it can be renewed with nobody asking.
    renewable: bool = False
    #: Whether a store of the owner's keeps it, and how much of it a process that starts now would find there.
    kept: bool = False
    stored: float = 0.0
    in_fleet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GoesDark:
    """One thing that goes dark: a scope of the application's own, a population of users, a set of keys, or sessions.

    Of sessions those are the process's that it has read, and their users are taken to go on asking.
    """

    kind: Literal["scope", "users", "keys", "sessions"]
    #: Whether it is what this process has, or what the whole fleet has in its store.
    reach: Literal["process", "fleet"]
    authority: str
    #: Those of a token; "" for others.
    tenant: str = ""
    client_id: str = ""
    flow: str = ""
    #: The scopes, the issuer whose keys these are, or the address of the application whose sessions they are.
    name: str
    pinned: bool = False
    #: How many tokens, keys or sessions.
    count: int
    #: Seconds until the first of them goes dark, and until the last does; None for what stays.
    first: float | None
    last: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A change, and when the first thing would go dark with it."""

    change: Literal["pin", "grace", "keys", "extension", "store"]
    #: What to do, in plain words.
    text: str
    #: Seconds until the first thing goes dark then; None for never.
    first: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What happens if the providers die now. `str` of it is a report for a person."""

    #: Seconds since the epoch.
    at: float
    #: Seconds until the first thing of this process goes dark; None where nothing does.
    first: float | None
    #: Seconds until the first thing goes dark of a process that starts now; None where nothing is held.
    after_restart: float | None
    #: What goes dark when, the first one first; at most 50.
    parts: tuple[GoesDark, ...]
    #: What would lengthen it, the most first.
    advice: tuple[Advice, ...]
    #: Seconds since the stores were looked into; None where they weren't, or there is none.
    stores_age: float | None = None

    @property
    def headline(self) -> str:
        """Return when the first thing goes dark, in words."""
        if not self.parts:
            return "nothing is held that could go dark"
        return f"first dark {_when(self.first, self.at)}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, with numbers rounded to milliseconds; it holds no token and no user's id."""
        found: dict[str, Any] = as_json(self)
        return found

    def __str__(self) -> str:
        return "\n".join(_report(self))


def foresee(
    holdings: Sequence[Holding],
    keys: Sequence[KeysHealth],
    sessions: Sequence[SessionEnds] = (),
    *,
    at: float,
    stores_age: float | None = None,
) -> Forecast:
    """Return what goes dark when.

    Args:
        holdings: The tokens that somebody has use for.
        keys: The key sets that somebody has use for.
        sessions: The sessions that this process has read, and those that the fleet has.
        at: The wall time.
        stores_age: For how long what is known of the stores has been known; None where nothing is.
    """
    own = [each for each in holdings if not each.in_fleet]
    held = _Held(own, keys, [each for each in sessions if not each.in_fleet], _begins(own))
    parts = [*_of_tokens(own, held.begins, "process"), *_of_keys(keys), *_of_sessions(sessions)]
    parts += _of_tokens([each for each in holdings if each.in_fleet], {}, "fleet")
    parts.sort(key=lambda part: (math.inf if part.first is None else part.first, part.reach, part.name))
    return Forecast(
        at=at,
        first=_told(held.first()),
        after_restart=min((_end(each, held.begins, each.stored) for each in own), default=None),
        parts=tuple(parts[:_MOST_PARTS]),
        advice=tuple(_advice(held, at)),
        stores_age=stores_age,
    )


@dataclass(frozen=True, slots=True)
class _Held:
    """What this process has that may go dark."""

    own: Sequence[Holding]
    keys: Sequence[KeysHealth]
    sessions: Sequence[SessionEnds]
    #: From when on each site is seen to fail.
    begins: Mapping[Hashable, float]

    def first(self, grace: FallbackOptions | None = None) -> float:
        """Return when the first of it goes dark; with this grace, where the owner's is to be weighed."""
        tokens = (_end(each, self.begins, grace=grace) for each in self.own)
        keys = (each.time_to_dark for each in self.keys if each.time_to_dark is not None)
        return min((*tokens, *keys, *(each.first for each in self.sessions)), default=math.inf)


def _begins(holdings: Iterable[Holding]) -> Mapping[Hashable, float]:
    """Return for each site from when on it is seen to fail: who asks first finds that out."""
    found: dict[Hashable, float] = {}
    for each in holdings:
        when = -each.failing_for if each.failing_for is not None else each.asked_in
        if when is not None:
            found[each.site] = min(when, found.get(each.site, math.inf))
    return found


def _end(
    each: Holding,
    begins: Mapping[Hashable, float],
    left: float | None = None,
    grace: FallbackOptions | None = None,
) -> float:
    """Return for how many seconds a token is served if its provider is dead; see `_policy.fallback`.

    Args:
        each: Which.
        begins: From when on each site is seen to fail.
        left: What is left of it, where that is to be weighed in place of what is.
        grace: The same of the owner's grace, where there may be one.
    """
    left = each.left if left is None else left
    options = each.grace if grace is None or each.grace is None else grace
    if left <= 0 and each.failing_for is None:
        return 0.0
    if options is None or options.grace <= 0:
        return max(0.0, left)
    # Where nobody has asked before, whoever asks when it is over finds out.
    seen = min(begins.get(each.site, math.inf), max(0.0, left))
    return max(0.0, left, min(left + options.grace, seen + options.grace_outage))


def _told(seconds: float) -> float | None:
    return None if seconds == math.inf else seconds


def _of_tokens(
    holdings: Sequence[Holding], begins: Mapping[Hashable, float], reach: Literal["process", "fleet"]
) -> Iterator[GoesDark]:
    groups: dict[tuple[object, ...], list[Holding]] = {}
    for each in holdings:
        alike = (each.authority, each.tenant, each.client_id, each.flow, each.scopes, each.users)
        groups.setdefault(alike, []).append(each)
    for group in groups.values():
        one, ends = group[0], [_end(each, begins) for each in group]
        yield GoesDark(
            kind="users" if one.users else "scope",
            reach=reach,
            authority=one.authority,
            tenant=one.tenant,
            client_id=one.client_id,
            flow=one.flow,
            name=" ".join(one.scopes),
            pinned=any(each.pinned for each in group),
            count=len(group),
            first=min(ends),
            last=max(ends),
        )


def _of_keys(keys: Sequence[KeysHealth]) -> Iterator[GoesDark]:
    for each in keys:
        yield GoesDark(
            kind="keys",
            reach="process",
            authority=each.authority,
            name=each.issuer,
            pinned=each.state == "pinned",
            count=each.keys,
            first=each.time_to_dark,
            last=each.time_to_dark,
        )


def _of_sessions(sessions: Sequence[SessionEnds]) -> Iterator[GoesDark]:
    for each in sessions:
        yield GoesDark(
            kind="sessions",
            reach="fleet" if each.in_fleet else "process",
            authority=each.authority,
            name=each.application,
            count=each.count,
            first=each.first,
            last=each.last,
        )


def _advice(held: _Held, at: float) -> Iterator[Advice]:
    first = held.first()
    weighed = (_pinned(held), _with_grace(held), _with_keys(held), _with_extension(held))
    changes = [found for found in weighed if found is not None and found[2] - first >= _WORTH]
    changes.sort(key=lambda found: -found[2])
    for change, text, then in changes:
        yield Advice(change=change, text=f"{text}: {_hour(at, then)} instead of {_hour(at, first)}", first=_told(then))
    loose = [each for each in held.own if not each.kept and each.left > 0]
    if loose:
        then = min(_end(each, held.begins) for each in loose)
        text = f"add a store: after a restart tokens last until {_hour(at, then)}; without one they are gone at once"
        yield Advice(change="store", text=text, first=_told(then))


#: A change, what it is in words, and when the first thing goes dark then.
_Change = tuple[Literal["pin", "grace", "keys", "extension"], str, float]


def _pinned(held: _Held) -> _Change | None:
    """Weigh that what could be pinned had been: it would have been refreshed each time that it was due."""
    then = replace(held, own=[_as_pinned(each) for each in held.own]).first()
    needed = {each.scopes for each in held.own if _end(each, held.begins) < then and _as_pinned(each) is not each}
    if not needed:
        return None
    which = "this scope" if len(needed) == 1 else f"these {len(needed)} scopes"
    names = ", ".join(sorted(" ".join(scopes) for scopes in needed)[:5])
    return "pin", f"pin {which} ({names}{', ...' if len(needed) > 5 else ''})", then


def _as_pinned(each: Holding) -> Holding:
    if each.pinned or each.users or not each.renewable or each.age < each.due_after or each.due_after <= 0:
        return each
    gained = each.age - each.age % each.due_after
    return replace(each, left=max(0.0, each.left) + gained, age=each.age - gained)


def _with_grace(held: _Held) -> _Change | None:
    if any(each.grace is not None and each.grace.grace > 0 for each in held.own):
        return None
    text = f"turn on grace of {span(_GRACE.grace)}, if your APIs accept expired tokens for as long"
    return "grace", text, held.first(_GRACE)


def _with_keys(held: _Held) -> _Change | None:
    """Weigh that the issuers' keys were pinned, which never end."""
    then = replace(held, keys=[]).first()
    issuers = sorted(each.issuer for each in held.keys if each.time_to_dark is not None and each.time_to_dark < then)
    return ("keys", f"give pinned_keys for {', '.join(issuers[:5])}", then) if issuers else None


def _with_extension(held: _Held) -> _Change | None:
    """Weigh that sessions which are over by their lifetime went on while the provider is down."""
    if all(each.extension > 0 for each in held.sessions):
        return None
    extended = [each if each.extension else replace(each, first=each.first + _EXTENSION) for each in held.sessions]
    text = f"give sessions an extension of {span(_EXTENSION)}, while nobody can sign in"
    return "extension", text, replace(held, sessions=extended).first()


def _hour(at: float, seconds: float) -> str:
    return "never" if seconds == math.inf else at_time(at + seconds)


def _when(seconds: float | None, at: float) -> str:
    if seconds is None:
        return "never"
    return "now" if seconds <= 0 else f"in {span(seconds)}, at {at_time(at + seconds)}"


def _report(forecast: Forecast) -> Iterator[str]:
    """Write when it is over first, then a line for each thing."""
    at = forecast.at
    yield f"IF THE PROVIDER DIED NOW: {forecast.headline}"
    if forecast.parts and forecast.after_restart is not None:
        yield f"  after a restart: {_when(forecast.after_restart, at)}"
    for part in forecast.parts:
        whose = f"{part.flow} " if part.flow else ""
        count = f"{part.count} session{'' if part.count == 1 else 's'} of {part.name}"
        seen = "" if part.reach == "fleet" else ", of those that this process has read"
        name = {
            "scope": f"{whose}{part.name}",
            "users": f"{part.count} users' {part.name}",
            "keys": f"signing keys of {part.name}",
            "sessions": f"{count}{seen}, begun",
        }[part.kind]
        where = " in the fleet's store" if part.reach == "fleet" else ""
        pinned = ", pinned" if part.pinned else ""
        last = f"; the last one {_when(part.last, at)}" if part.last != part.first else ""
        at_whom = f" at {part.authority}/{part.tenant}".rstrip("/") if part.kind != "keys" else ""
        yield f"  {name}{at_whom}{where}{pinned}: {_when(part.first, at)}{last}"
    for advice in forecast.advice:
        yield f"  to live longer, {advice.text}"
