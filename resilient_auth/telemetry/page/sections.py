"""The page's sections, each as markup of its own; a section that hasn't changed isn't sent again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from ..._policy.blame.verdict import ADVICE
from ...health import Blame, Forecast, GoesDark, Health, TokenHealth
from ...health.wording import at_time, span
from ..levels.values import ServiceLevels
from .drawing import WIDTH, Axis, rect, svg
from .history import Lane, Outage
from .markup import Html, details, element, listed, table
from .requests import requests_section

__all__ = ["TITLES", "Seen", "sections"]

#: Rows of one table, and lanes, at most: a page stays readable, and its size bounded.
_MOST: Final = 50
_QUARTER, _HOUR, _MONTH = 900.0, 3600.0, 30 * 86_400.0
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "ok": ("All is well", "Nothing fails."),
    "degraded": ("Degraded", "Something fails, and what is held lasts. Users notice nothing yet."),
    "at risk": ("At risk", "What is held ends within a quarter of an hour, and can't be renewed."),
    "down": ("Down", "Somebody who asks now gets nothing."),
}
_CULPRITS: Final[Mapping[str, str]] = {
    "process": "This process or machine has run out of something",
    "proxy": "The proxy",
    "network": "The network, or name resolution",
    "tls": "The trust store, or what inspects TLS",
    "clock": "This machine's clock",
    "provider": "The identity provider",
    "credential": "This application's credential, or its registration",
    "throttled": "This application, which asks more than it may",
    "unknown": "Unknown",
}
#: By a section's id, its heading; the verdict's is for those who hear it.
TITLES: Final[Mapping[str, str]] = {
    "verdict": "Verdict",
    "dark": "Time to dark",
    "blame": "Whose fault it is",
    "forecast": "If the provider died now",
    "timeline": "Circuits and outages",
    "requests": "Requests and success",
    "stores": "Stores, keys, credentials and tokens",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that the page tells."""

    at: float
    health: Health
    levels: ServiceLevels
    lanes: Sequence[Lane] = ()
    outages: Sequence[Outage] = ()
    #: Since when circuits have been watched.
    since: float
    process: int


def sections(seen: Seen) -> dict[str, str]:
    """Return the sections' markup by their ids, in their order."""
    forecast = seen.health.forecast
    assert forecast is not None  # noqa: S101 - health() has it
    written = {
        "verdict": _verdict(seen),
        "dark": _dark(forecast),
        "blame": _blame(seen.health.blame),
        "forecast": _forecast(forecast),
        "timeline": _timeline(seen),
        "requests": requests_section(seen.levels),
        "stores": _stores(seen),
    }
    return {name: "".join(parts) for name, parts in written.items()}


def _verdict(seen: Seen) -> Iterator[Html]:
    word, what = _WORDS[seen.health.verdict]
    kind = {"ok": "good", "degraded": "tardy"}.get(seen.health.verdict, "bad")
    # It is read out when it changes, and so holds no time that runs.
    yield element("p", element("strong", word), " ", element("span", what), kind=f"headline {kind}", role="status")
    yield listed(seen.health.reasons[:_MOST])


def _dark(forecast: Forecast) -> Iterator[Html]:
    if not forecast.parts:
        yield element("p", "No token, no key and no session is held yet.")
        return
    fleet = min((part.first for part in forecast.parts if part.reach == "fleet" and part.first is not None), default=-1)
    cards = [("First dark, this process", forecast.first), ("If it were restarted now", forecast.after_restart)]
    if fleet >= 0:
        cards.append(("First dark, the fleet's store", fleet))
    yield element("dl", *(_card(name, forecast.at, seconds) for name, seconds in cards), kind="cards")
    longest = max((part.first or 0.0 for part in forecast.parts), default=0.0)
    rows = [
        (_what(part), _whose(part), Html(_when(forecast.at, part.first)), Html(_bar(part.first, longest)))
        for part in forecast.parts[:_MOST]
    ]
    yield table(
        "When what is held goes dark, if nothing can be renewed",
        ("What", "Whose", "Dark", element("span", "Bar", kind="heard")),
        rows,
    )
    yield element("p", "The bars are on a logarithmic scale.", kind="small soft")


def _card(name: str, at: float, seconds: float | None) -> Html:
    kind = _urgency(seconds)
    shown = "never" if seconds is None else span(seconds) if seconds > 0 else "dark now"
    when = "" if seconds is None or seconds <= 0 else f"at {at_time(at + seconds)}"
    return element("div", element("dt", name), element("dd", element("b", shown, kind=kind), " ", when))


def _urgency(seconds: float | None) -> str:
    if seconds is None or seconds >= _HOUR:
        return "good"
    return "tardy" if seconds >= _QUARTER else "bad"


def _when(at: float, seconds: float | None) -> Html:
    if seconds is None:
        return element("span", "never", kind="good")
    if seconds <= 0:
        return element("b", "dark now", kind="bad")
    return element("span", element("b", at_time(at + seconds), kind=_urgency(seconds)), f" in {span(seconds)}")


def _bar(seconds: float | None, longest: float) -> str:
    share = 1.0 if seconds is None else math.log1p(seconds / 60.0) / max(math.log1p(longest / 60.0), 1e-9)
    kind = {"good": "served", "tardy": "late"}.get(_urgency(seconds), "missed")
    return svg("bar", 10, [rect("ground", 0, 0, WIDTH, 10), rect(kind, 0, 0, WIDTH * min(1.0, share), 10)])


def _what(part: GoesDark) -> str:
    what = {"keys": "keys of ", "sessions": "sessions of "}
    return f"{what.get(part.kind, '')}{part.name}" or "no scope"


def _whose(part: GoesDark) -> str:
    several = "" if part.count == 1 else "s"
    whose = {
        "scope": "the application's own",
        "users": f"{part.count:,} user{several}",
        "keys": f"{part.count} key{several}",
        "sessions": f"{part.count:,}{' that this process has read' if part.reach == 'process' else ''}",
    }
    told = [
        whose[part.kind],
        *(["pinned"] if part.pinned else []),
        *(["in the fleet's store"] if part.reach == "fleet" else []),
    ]
    last = "" if part.last == part.first or part.last is None else f"; the last in {span(part.last)}"
    return f"{', '.join(told)}{last}"


def _blame(blames: Sequence[Blame]) -> Iterator[Html]:
    if not blames:
        yield element("p", "Nobody's: no identity provider fails.")
    for blame in blames[:_MOST]:
        over = f" over {blame.wire}" if blame.wire else ""
        whom = f", for {blame.client_id} alone" if blame.client_id else ""
        yield element("h3", _CULPRITS.get(blame.what, blame.what))
        yield element("p", f"{blame.authority}{over}{whom}, since {at_time(blame.since)}. What says so:")
        yield listed(blame.evidence)
        yield element("p", _sentence(ADVICE[blame.what]))


def _forecast(forecast: Forecast) -> Iterator[Html]:
    if not forecast.parts:
        yield element("p", "Nothing is held that could go dark.")
        return
    yield element("p", f"If the provider died now: {forecast.headline}.")
    if forecast.advice:
        yield element("p", "What would lengthen that, the most first:")
        yield listed((_sentence(advice.text) for advice in forecast.advice), name="ol")
    else:
        yield element("p", "No single setting would lengthen that by more than a minute.")
    if forecast.stores_age is None:
        yield element("p", "The stores haven't been looked into, or there is none.", kind="small soft")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _timeline(seen: Seen) -> Iterator[Html]:
    began = max(seen.since, seen.at - 24 * 3600.0)
    axis = Axis(min(began, seen.at - _QUARTER), seen.at)
    if not seen.lanes:
        yield element("p", f"No circuit has opened since {_day(began)}.")
        return
    for lane in seen.lanes:
        state = lane.changes[-1].state
        kind = {"closed": "good", "half-open": "tardy"}.get(state, "bad")
        who = element("div", element("span", lane.name), element("b", state, kind=kind), kind="who")
        times = sum(1 for change in lane.changes if change.state == "open")
        label = f"{lane.name}: {state}, opened {times} time{'' if times == 1 else 's'}"
        yield element("div", who, Html(svg("strip", 24, _states(lane, axis), label=label)), kind="lane")
    middle = (axis.first + axis.last) / 2
    marks = (element("span", _day(moment)) for moment in (axis.first, middle, axis.last))
    yield element("div", *marks, kind="hours", aria_hidden="true")
    rows = [
        (
            outage.name,
            _day(outage.began),
            "goes on" if outage.ended is None else _day(outage.ended),
            span((seen.at if outage.ended is None else outage.ended) - outage.began),
            outage.code.replace("_", " "),
        )
        for outage in seen.outages
    ]
    caption = "Spans in which a circuit was open"
    yield details("outages", f"{caption}, as a table", table(caption, ("What", "From", "To", "Lasted", "Why"), rows))


def _states(lane: Lane, axis: Axis) -> Iterator[str]:
    yield rect("served", 0, 0, WIDTH, 24)
    ends = [*(change.at for change in lane.changes[1:]), axis.last]
    for change, end in zip(lane.changes, ends, strict=True):
        if change.state != "closed":
            kind = "late" if change.state == "half-open" else "missed"
            left = axis.x(change.at)
            # A break of seconds is seen on an axis of a day.
            yield rect(kind, left, 0, max(2.0, axis.x(end) - left), 24)


def _day(at: float) -> str:
    try:
        return f"{datetime.fromtimestamp(at, UTC):%d %b %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return "the end of time"


def _stores(seen: Seen) -> Iterator[Html]:
    health = seen.health
    yield element("h3", "Stores")
    if health.stores:
        stores = [
            (
                store.target,
                _good(store.state.replace("_", "-"), store.state == "ok"),
                (store.last_code or "none").replace("_", " "),
                str(store.unreadable),
            )
            for store in health.stores[:_MOST]
        ]
        yield table("Stores", ("Store", "State", "Last failure", "Unreadable records"), stores)
    else:
        yield element("p", "None: what is held ends with this process.")
    if health.removals_pending:
        yield element("p", f"Sign-outs that no store has heard of yet: {health.removals_pending}.")
    yield element("h3", "Signing keys")
    if health.keys:
        keys = [
            (
                each.issuer,
                _good(each.state, each.state in ("fresh", "pinned")),
                "never" if each.age is None else f"{span(each.age)} ago",
                str(each.keys),
                f"{each.failures}{f' ({each.last_code})' if each.last_code else ''}",
            )
            for each in health.keys[:_MOST]
        ]
        yield table("Signing keys", ("Issuer", "State", "Fetched", "Keys", "Failed fetches"), keys)
    else:
        yield element("p", "No token is verified here.")
    if health.credentials:
        yield element("h3", "Credentials")
        rows = [
            (
                f"{each.credential} of {each.client_id}",
                each.authority or "unknown",
                _day(each.at),
                _good("ended" if each.remaining <= 0 else f"in {each.remaining // 86_400:.0f} days",
                      each.remaining > _MONTH),
            )
            for each in health.credentials[:_MOST]
        ]  # fmt: skip
        yield table("Credentials", ("Which", "At", "Ends", "Left"), rows)
    yield element("h3", "Tokens")
    tokens = list(_tokens(health.tokens))
    yield (
        table("Tokens", ("Scopes", "Flow", "Held", "State", "Failed"), tokens[:_MOST])
        if tokens
        else element("p", "None was asked for yet.")
    )
    hang = [lane for lane in health.lanes if lane.overdue or lane.waiting]
    yield listed(f"{lane.name}: {lane.waiting} wait, {lane.overdue} hang" for lane in hang[:_MOST])


def _good(text: str, good: bool) -> Html:
    return element("b", text, kind="good" if good else "bad")


def _tokens(tokens: Sequence[TokenHealth]) -> Iterator[tuple[object, ...]]:
    """Group tokens by what they are for: whose they are is nobody's business here."""
    groups: dict[tuple[object, ...], list[TokenHealth]] = {}
    for token in tokens:
        users = token.subject is not None
        groups.setdefault((token.authority, token.tenant, token.client_id, token.flow, token.scopes, users), []).append(
            token
        )
    for group in groups.values():
        one, states = group[0], [token.state for token in group]
        told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        failed = [token for token in group if token.failures]
        code = next((token.last_code for token in failed if token.last_code), "")
        whose = "application" if one.subject is None else "users"
        flow = f"{one.flow.replace('_', ' ')} at {one.authority}/{one.tenant}".rstrip("/")
        failing = f"{len(failed)}{f' ({code})' if code else ''}" if failed else "0"
        yield " ".join(one.scopes), flow, f"{len(group):,}, {whose}", told, _good(failing, not failed)
