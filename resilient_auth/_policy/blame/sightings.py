"""What attempts at each provider showed, over each wire, as much as the verdict needs and no more.

    attempt ── begins ──▶ out: may be looked at ── ends ──▶ way:   it never got there; the next answer ends that
                                                     └────▶ parts: an answer, of one realm, purpose and application

What came over one wire steers nothing of what is said of another one.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ..._process.living import LiveObjects
from ...clock import Clock
from ...events import BlameChanged, emit
from ..endpoint import Endpoint, WireIdentity
from ..failure import Purpose, http_date
from ..levels import ProviderRequest
from .sighting import OF_APPLICATION, OF_WAY, Certificate, Sighting, Symptom, certificate_of
from .verdict import Blame, Culprit, Known, judge

__all__ = ["Attempt", "Sightings", "blames"]

#: Of one provider, over one wire: realms, purposes and applications that fail.
_MOST_PARTS = 64
#: Seconds for which what isn't seen again is still told: longer than any break of a circuit.
_KEPT = 900.0
#: Seconds after which an attempt that is out is looked at.
_LONG = 5.0
_LONGEST_DATE = 64
#: Where what is wrong with an answer is found by who reads it.
_READ_LATER = frozenset({Purpose.DISCOVERY, Purpose.ALIASES, Purpose.KEYS})
#: What several providers may have in common, where it is the network's.
_REFUSED = frozenset({Symptom.REFUSED, Symptom.LED_HERE})
_UNREACHED = _REFUSED | {Symptom.UNRESOLVED, Symptom.UNREACHABLE, Symptom.SILENT}
#: The nearest cause first: what the process lacks, it sees nowhere else.
_ORDER: tuple[Culprit, ...] = (
    "process", "proxy", "network", "tls", "clock", "provider", "unknown", "credential", "throttled",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Something that goes on: what was seen last, when that was, and when it began, on the monotonic clock."""

    seen: Sighting
    since: float
    last: float


@dataclass(slots=True, eq=False)
class _Record:
    """What is known of one provider over one wire."""

    way: _Trouble | None = None
    parts: dict[Hashable, tuple[str, _Trouble]] = field(default_factory=dict)
    #: Monotonic time of the last word that only the provider can have said.
    answered_at: float | None = None
    #: With which it answered last, and the last `Date` that could be trusted, with the monotonic time of that.
    certificate: bytes | None = None
    date: tuple[str, float] | None = None
    quickest: float | None = None
    #: Who was blamed last, by application; "" for what is everybody's.
    told: dict[str, Culprit] = field(default_factory=dict)

    @property
    def quiet(self) -> bool:
        return self.way is None and not self.parts and not self.told


@dataclass(frozen=True, slots=True)
class _Around:
    """What is known over one wire.

    Args:
        records: Of each provider.
        unreached: How many of these can't be reached.
        answered: When those that can answered last, in order.
        date: The newest that one of them has told.
    """

    records: dict[Endpoint, _Record]
    unreached: int
    answered: list[float]
    date: tuple[str, float] | None


class Attempt(Protocol):
    """One attempt, and how far it has come."""

    @property
    def trusted_wire(self) -> bool:
        """Whether the provider's certificate is checked."""

    @property
    def seconds(self) -> float | None:
        """What the way there and back takes."""

    @property
    def certificate(self) -> bytes | None:
        """The certificate that was shown."""

    def look(self) -> Sighting:
        """Tell what is to be seen of it now."""


class Sightings:
    """Hold what attempts showed, bounded, and say whose fault it is.

    Args:
        clock: Gives the time.
        most: Providers, each over one wire, that are kept; those that were asked last.
        read: Reads a certificate.
    """

    def __init__(
        self, clock: Clock, *, most: int = 512, read: Callable[[bytes], Certificate | None] = certificate_of
    ) -> None:
        self._clock = clock
        self._read = read
        self._most = most
        #: What is out: whom it asks, and the monotonic time at which it went. Whoever sends an attempt puts it here.
        self.out: dict[Attempt, tuple[ProviderRequest, float]] = {}
        #: Those that failed last are at the end. Plain ones, both: they are read without the lock.
        self._records: dict[Endpoint, _Record] = {}
        self._lock = threading.Lock()
        _living.add(self)

    def after_fork(self) -> None:
        """Make it usable in a forked child: the parent's attempts aren't the child's."""
        self._lock = threading.Lock()
        self.out.clear()

    def answered(self, asked: ProviderRequest, attempt: Attempt, date: str | None) -> None:
        """Note that the provider gave what was asked for, and its `Date`: where nothing fails, that is all."""
        _, began = self.out.pop(attempt, (None, None))
        if began is None or asked.purpose is Purpose.REGION:  # forgotten meanwhile, or nobody's fault
            return
        with self._lock:
            record = self._records.get(asked.site) or self._record(asked.site)
            record.answered_at = began
            way = attempt.seconds
            if way is not None and (record.quickest is None or way < record.quickest):
                record.quickest = way
            if attempt.trusted_wire:
                record.certificate = attempt.certificate or record.certificate
                if date is not None:
                    record.date = date[:_LONGEST_DATE], began
            if record.way is None and not record.parts and not record.told:
                return
            events = self._take(record, asked, Sighting(), began)
        for event in events:
            emit(event)

    def starved(self, endpoint: Endpoint) -> None:
        """Note that this process had no thread with which to ask."""
        self._note(ProviderRequest(endpoint), Sighting(symptom=Symptom.STARVED))

    def document(self, asked: ProviderRequest, fault: str | None) -> None:
        """Note what is wrong with a document that was there; None for nothing."""
        record = self._records.get(asked.site)
        if fault is not None or (record is not None and record.parts):
            symptom = None if fault is None else Symptom.MALFORMED
            self._note(asked, Sighting(symptom=symptom, detail=fault or ""), read=True)

    def ended(self, asked: ProviderRequest, attempt: Attempt, seen: Sighting | None) -> None:
        """Note how an attempt ended, and tell where somebody else is to blame now.

        Args:
            asked: What it asked, of whom.
            attempt: The one.
            seen: What it showed; None where that says nothing.
        """
        known = self.out.pop(attempt, None) is not None
        # What isn't there on most machines, and is asked for once, is nobody's fault.
        if known and seen is not None and asked.purpose is not Purpose.REGION:
            self._note(asked, seen)

    def _note(self, asked: ProviderRequest, seen: Sighting, *, read: bool = False) -> None:
        with self._lock:
            record = self._record(asked.site)
            events = self._take(record, asked, seen, self._clock.monotonic(), read=read)
        for event in events:
            emit(event)

    def blames(self) -> list[Blame]:
        """List who is to blame for what fails now, without a lock: a signal's handler may ask, amid what holds it."""
        now, arounds = self._clock.monotonic(), dict[WireIdentity, _Around]()
        found: list[Blame] = []
        asked_first = {asked.site: _Record() for asked, _ in list(self.out.values())}
        for site, record in (asked_first | dict(list(self._records.items()))).items():
            around = arounds.get(site.wire)
            if around is None:
                around = arounds[site.wire] = self._around(site.wire, now)
            found += self._blamed(site, record, around, now, live=True)
        return found

    def forget(self, site: Endpoint) -> None:
        """Let go of what is known of a provider of which nobody asks anything any more."""
        with self._lock:
            self._records.pop(site, None)
        for attempt, (asked, _) in list(self.out.items()):
            if asked.site == site:
                self.out.pop(attempt, None)

    # What follows is called with the lock held, but for what `blames` asks.

    def _record(self, site: Endpoint) -> _Record:
        record = self._records.pop(site, None) or _Record()
        if len(self._records) >= self._most:
            self._records.pop(next(iter(self._records)))
        self._records[site] = record
        return record

    def _take(
        self, record: _Record, asked: ProviderRequest, seen: Sighting, now: float, *, read: bool = False
    ) -> list[BlameChanged]:
        """Note what was seen; returns what changes by it, to be told without the lock."""
        was_quiet = record.quiet
        self._put(record, asked, seen, now, read=read)
        if was_quiet and record.quiet:
            return []
        around = self._around(asked.site.wire, now)
        # What is seen of one is evidence for those that refuse, on that wire.
        concerned = {asked.site: record} | {
            site: one for site, one in around.records.items()
            if one.way is not None and one.way.seen.symptom in _REFUSED
        }  # fmt: skip
        return [event for each in concerned.items() for event in self._changes(*each, around, now)]

    def _put(self, record: _Record, asked: ProviderRequest, seen: Sighting, now: float, *, read: bool) -> None:
        if seen.date is not None:
            record.date = seen.date[:_LONGEST_DATE], now
        if seen.symptom in OF_WAY:
            before = record.way
            record.way = _Trouble(seen, now if before is None else before.since, now)
            return
        part = asked.endpoint, asked.purpose, asked.client_id
        if seen.symptom is not Symptom.PAGE:  # of which nobody knows whose it is
            record.way, record.answered_at = None, now
        if seen.symptom is None and asked.purpose in _READ_LATER and not read:
            return
        held = record.parts.pop(part, None)
        if seen.symptom is None:
            return
        if len(record.parts) >= _MOST_PARTS:
            record.parts.pop(next(iter(record.parts)))
        whose = asked.client_id if seen.symptom in OF_APPLICATION else ""
        record.parts[part] = whose, _Trouble(seen, now if held is None else held[1].since, now)

    def _changes(self, site: Endpoint, record: _Record, around: _Around, now: float) -> Iterator[BlameChanged]:
        blamed = {blame.client_id: blame for blame in self._blamed(site, record, around, now, live=False)}
        for client_id in {**record.told, **blamed}:
            blame, before = blamed.get(client_id), record.told.pop(client_id, None)
            if blame is not None:
                record.told[client_id] = blame.what
            what = "nobody" if blame is None else blame.what
            if what != (before or "nobody"):
                yield BlameChanged(
                    at=self._clock.wall(),
                    authority=site.origin,
                    wire=site.wire.label,
                    client_id=client_id,
                    what=what,
                    previous=before or "nobody",
                    evidence=() if blame is None else blame.evidence,
                )

    def _blamed(self, site: Endpoint, record: _Record, around: _Around, now: float, *, live: bool) -> list[Blame]:
        """Say whose fault it is, once for what is everybody's and once for each application's own."""
        troubles: list[tuple[str, _Trouble]] = list(record.parts.values())
        if record.way is not None:
            # While it isn't reached, what it said before is no news.
            troubles = [("", record.way), *(each for each in troubles if each[0])]
        if live:
            troubles += self._looked_at(site, troubles, now)
        found: dict[str, Blame] = {}
        known: Known | None = None
        for whose, trouble in troubles:
            if now - trouble.last > _KEPT:
                continue
            known = known or self._known(site, record, around, now)
            what, evidence = judge(trouble.seen, known)
            about = {"authority": site.origin, "wire": site.wire.label, "client_id": whose}
            blame = Blame(what=what, since=known.wall - (now - trouble.since), evidence=evidence, **about)
            other = found.get(whose)
            if other is None or _ORDER.index(what) < _ORDER.index(other.what):
                found[whose] = blame
        return list(found.values())

    def _looked_at(
        self, site: Endpoint, troubles: list[tuple[str, _Trouble]], now: float
    ) -> Iterator[tuple[str, _Trouble]]:
        if any(not whose for whose, _ in troubles):
            return
        for attempt, (asked, began) in list(self.out.items()):
            if asked.site == site and asked.purpose is not Purpose.REGION and _LONG <= now - began <= _KEPT:
                seen = attempt.look()
                if seen.symptom is not None:
                    yield "", _Trouble(seen, began, now)

    def _around(self, wire: WireIdentity, now: float) -> _Around:
        records = {site: one for site, one in list(self._records.items()) if site.wire == wire}
        ways = [(one.way, one.answered_at) for one in records.values()]
        return _Around(
            records=records,
            unreached=sum(_unreached(way, now) for way, _ in ways),
            answered=sorted(at for way, at in ways if way is None and at is not None),
            date=max((one.date for one in records.values() if one.date), key=lambda date: date[1], default=None),
        )

    def _known(self, site: Endpoint, record: _Record, around: _Around, now: float) -> Known:
        wall, way = self._clock.wall(), record.way
        told = None if around.date is None else http_date(around.date[0])
        return Known(
            wall=wall,
            ahead=None if told is None or around.date is None else wall - (told + (now - around.date[1])),
            certificate=None if record.certificate is None else self._read(record.certificate),
            quickest=record.quickest,
            answered=record.answered_at is not None,
            others_fail=around.unreached - _unreached(way, now),
            # Those that have answered since it isn't reached: the network is up.
            others_answer=0 if way is None else len(around.answered) - bisect_left(around.answered, way.since),
        )


def _unreached(way: _Trouble | None, now: float) -> bool:
    return way is not None and way.seen.symptom in _UNREACHED and now - way.last <= _KEPT


_living: LiveObjects[Sightings] = LiveObjects()


def blames() -> list[Blame]:
    """List who is to blame for what fails in this process, the one to look at first."""
    found = [blame for sightings in _living.all() for blame in sightings.blames()]
    found.sort(key=lambda blame: (_ORDER.index(blame.what), blame.since, blame.authority))
    # Applications with other settings may have seen the same.
    once: dict[Hashable, Blame] = {}
    for blame in found:
        once.setdefault((blame.what, blame.authority, blame.wire, blame.client_id), blame)
    return list(once.values())
