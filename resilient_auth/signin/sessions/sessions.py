"""Sessions over a store: begun, found, renewed, and ended in every process at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

from ..._process import forks
from ...clock import Clock, SystemClock
from ...errors import StoreUnavailable
from ...store import Store
from .ending import SKEW, PendingEnds
from .lists import Listed, Lists
from .options import SessionOptions
from .outlook import Outlook
from .recent import Recent
from .record import GUEST, KIND, Session, Standing, Who, names_of, new_cookie, parsed_cookie, wanted_names

__all__ = ["Found", "Sessions"]

#: Lists that count all sessions, so that sign-ins at the same time seldom meet in one.
_COUNTERS: Final = 32
_GUESTS: Final = "guests"


@dataclass(frozen=True, slots=True)
class Found:
    """A session as a request has found it.

    Args:
        session: What the store has.
        standing: Whether it is live.
        digest: The hash of the id that has come.
        version: The record's.
    """

    session: Session
    standing: Standing
    digest: str = field(repr=False)
    version: str = field(repr=False)


class Sessions:
    """Keep sessions in a store, which all processes share.

    Threads may share one. Calls block while the store is asked, and raise `StoreUnavailable` where it can't tell: then
    nobody is signed out, and nobody is let in, but for whom the owner lets in by what was read up to `stale_if_error`
    seconds ago. What is ended here is over in this process at once, and in every other one within `recheck` seconds.

    Args:
        store: `FileStore`, `RedisStore` or another one.
        options: The owner's bounds.
        clock: Where the time comes from; for tests.
        application: Whose sessions they are: a store may have those of several, none of which is another one's.
    """

    def __init__(
        self,
        store: Store,
        options: SessionOptions | None = None,
        *,
        clock: Clock | None = None,
        application: str = "",
    ) -> None:
        self.options = options or SessionOptions()
        #: Called with each session that `end_where` has ended, at once or when the store works again.
        self.on_end: Callable[[Session], object] | None = None
        self._store = store
        self._application = application
        self._clock = clock or SystemClock()
        self._lists = Lists(store, self.options.longest, application)
        self._ends = PendingEnds(self._clock, self._end_listed, self.options.longest)
        self._recent = Recent(self._clock)
        #: When sessions end in an outage.
        self.outlook = Outlook(self._recent, store, self.options, self._clock, self._name)

    def create(self, who: Who) -> tuple[Session, str]:
        """Begin a session.

        Args:
            who: Who has signed in.

        Returns:
            The session, and the id for the browser, which is known nowhere else.

        Raises:
            StoreUnavailable: It can't be kept: the store fails, or holds as many as may be (code `full`).
        """
        forks.notice()
        now, options, names, mark = self._clock.wall(), self.options, names_of(who), self._recent.mark()
        before = [self._lists.read(name).ended for name in names]
        cookie, digest = new_cookie()
        session_id = cookie.partition(".")[0]
        session = Session(id=session_id, who=who, started=now, seen=now, current=digest, given=now)
        ends = now + options.longest
        share = max(1, -(-options.most // _COUNTERS))
        self._lists.change(_counter(session_id), lambda there: self._with_one_more(there, session_id, ends, now, share))
        if who.provider == GUEST:
            most = options.most_guests
            self._lists.change(_GUESTS, lambda there: self._with_one_more(there, session_id, ends, now, most))
        try:
            version = self._keep(session, dict(zip(names, before, strict=True)), ends, now)
        except StoreUnavailable:
            # What nobody has the id of counts among the user's all the same, and in time takes the place of another.
            self.end_soon(session_id)
            raise
        # As of before: an end that came meanwhile has found it.
        self._recent.put(session, version, mark)
        return session, cookie

    def _keep(self, session: Session, before: Mapping[str, float], ends: float, now: float) -> str:
        """Write a new session and list it, unless its user's sessions were ended since; return its version."""
        # Before it is listed: whoever ends what is listed finds it, and nobody has its id yet.
        version = self._store.write(
            KIND, self._name(session.id), session.dumps(), ttl=session.left(self.options, now), expected=None
        )
        crowded: list[str] | None = None
        for name, ended in before.items():
            listed = self._lists.change(name, lambda there: there.with_one(session.id, ends, now))
            if listed.ended != ended:
                # Ended while it was begun: whoever signed in must do so again.
                raise StoreUnavailable(self._store.label, "busy", "the user's sessions were ended a moment ago")
            # The user's own list is the first.
            crowded = list(listed.sessions)[: -self.options.per_user] if crowded is None else crowded
        for old in crowded or ():
            self.end(old)
        return version or ""

    def recall(self, cookie: str) -> Found | None:
        """Find the session of a browser's id where this process has read it a moment ago; asks no store."""
        forks.notice()
        parsed = parsed_cookie(cookie)
        if parsed is None:
            return None
        session_id, digest = parsed
        return self._found(self._recent.get(session_id, self.options.recheck), digest)

    def get(self, session_id: str) -> Session | None:
        """Return a session by its own id, for what isn't a browser's request.

        Raises:
            StoreUnavailable: The store can't tell.
        """
        known = self._read(session_id)
        return None if known is None or self._ends.cover(known[0]) else known[0]

    def find(self, cookie: str) -> Found | None:
        """Find the session of a browser's id; None where there is none, or it is over.

        Raises:
            StoreUnavailable: The store can't tell.
        """
        recalled = self.recall(cookie)
        if recalled is not None:
            return recalled
        parsed = parsed_cookie(cookie)
        if parsed is None:
            return None
        session_id, digest = parsed
        try:
            known = self._read(session_id)
        except StoreUnavailable:
            found = self._found(self._recent.get(session_id, self.options.stale_if_error), digest)
            if found is None:
                # By now it may have another id and a later end: nobody is signed out by what was read before.
                raise
            return found
        return self._found(known, digest)

    def _found(self, known: tuple[Session, str] | None, digest: str) -> Found | None:
        now = self._clock.wall()
        if known is None or not known[0].knows(digest, now) or self._ends.cover(known[0]):
            return None
        session, version = known
        standing = session.standing(self.options, now)
        return None if standing == "over" else Found(session, standing, digest, version)

    def is_due(self, found: Found) -> bool:
        """Return whether there is something to write down of a request."""
        now = self._clock.wall()
        session, digest = found.session, found.digest
        if found.standing != "live":
            return False
        return session.rotation_due(digest, self.options, now) or session.touched(digest, self.options, now) is not None

    def renew(self, found: Found) -> tuple[Session, str | None]:
        """Rotate or touch a session, where it is time.

        Returns:
            The session, and the browser's new id where it gets one.
        """
        cookie = self.rotate(found)
        if cookie is not None:
            return found.session, cookie
        return self.touch(found), None

    def touch(self, found: Found) -> Session:
        """Write down, now and then, that a request has come; in its extension a session isn't renewed by that."""
        changed = found.session.touched(found.digest, self.options, self._clock.wall())
        if changed is None or found.standing != "live":
            return found.session
        return self._replace(found, changed) or found.session

    def rotate(self, found: Found, *, anyway: bool = False) -> str | None:
        """Give the browser another id, where it is time.

        Args:
            found: The session.
            anyway: Whether or not it is time.

        Returns:
            The new id; None where the one that has come stays, or another request is just being given one.
        """
        now = self._clock.wall()
        if found.standing != "live" or not (anyway or found.session.rotation_due(found.digest, self.options, now)):
            return None
        cookie, digest = new_cookie(found.session.id)
        changed = found.session.rotated(found.digest, digest, now)
        return None if self._replace(found, changed) is None else cookie

    def extend(self, found: Found) -> tuple[Session, bool]:
        """Have a session that is past its end go on, since the provider is down; return it, and whether that is new."""
        if found.session.extended is not None:
            return found.session, False
        until = found.session.ends(self.options) + self.options.extension
        changed = self._replace(found, replace(found.session, extended=until))
        return (replace(found.session, extended=until), False) if changed is None else (changed, True)

    def end(self, session_id: str) -> bool:
        """End a session; return whether there was one.

        Raises:
            StoreUnavailable: It is over in this process, and will be in the others when the store works again.
        """
        forks.notice()
        self._recent.end(session_id)
        with self._ends.until_done(session_id):
            known = self._read(session_id)
            if known is None:
                return False
            return self._erase(known[0])

    def end_soon(self, session_id: str) -> None:
        """End a session here at once, and in the store on another thread: for who mustn't wait."""
        forks.notice()
        self._recent.end(session_id)
        self._ends.soon(session_id)

    def end_where(
        self,
        issuer: str,
        sid: str | None = None,
        subject: str | None = None,
        oid: str | None = None,
        tenant: str | None = None,
        mail: str | None = None,
        begun_by: float = inf,
    ) -> int:
        """End every session of a user, or of a provider's session; what is given must all hold of one.

        Args:
            issuer: The provider's `iss`.
            sid: Its session.
            subject: The user's `sub` there.
            oid: The user's object id; with `tenant`.
            tenant: The user's tenant.
            mail: The user's address, in lower case.
            begun_by: Seconds since the epoch: what began later isn't meant, but for seconds by which clocks may differ.

        Returns:
            How many were ended.

        Raises:
            StoreUnavailable: They are over in this process, and will be in the others when the store works again.
        """
        return self.end_on(wanted_names(issuer, sid, subject, oid, tenant, mail), begun_by)

    def end_on(self, names: tuple[str, ...], begun_by: float = inf, *, proved: bool = True) -> int:
        """End every session that is on all of these lists; see `end_where`.

        Args:
            names: These.
            begun_by: As for `end_where`.
            proved: Whether who said so has proved it: else nothing is kept of it where there is nothing to end.

        Raises:
            StoreUnavailable: As for `end_where`.
        """
        forks.notice()
        if not names:
            return 0
        with self._ends.until_done(*names, begun_by=begun_by, proved=proved) as at:
            self._recent.end_all(names)
            return self._end_listed(names, at, begun_by + SKEW, proved)

    def any_listed(self, *names: str) -> bool:
        """Return whether a session is on one of these lists.

        Raises:
            StoreUnavailable: The store can't tell.
        """
        ids = [(KIND, self._name(id_)) for name in names for id_ in self._lists.read(name).sessions]
        return any(record is not None for record in self._store.read_many(ids))

    def listed(self, names: tuple[str, ...]) -> list[Session]:
        """Return every session that is on all of these lists.

        Raises:
            StoreUnavailable: The store can't tell.
        """
        ids = [(KIND, self._name(id_)) for id_ in self._lists.read(names[0]).sessions] if names else []
        found = (Session.loads(record.value) for record in self._store.read_many(ids) if record is not None)
        return [one for one in found if one is not None and set(names) <= set(names_of(one.who))]

    def _end_listed(self, names: tuple[str, ...], at: float, begun_by: float, proved: bool) -> int:
        """End what is on all of these lists and had begun by then."""
        if len(names) == 1 and " " not in names[0]:
            known = self._read(names[0])
            return int(known is not None and self._erase(known[0]))
        # One that is given up on before its end is found again by who tries again: the mark comes first.
        first = self._lists.change(names[0], lambda there: _marked(there, at) if proved or there.sessions else None)
        ended = 0
        for session_id in list(first.sessions):
            known = self._read(session_id)
            if known is None:
                self._lists.remove(names[0], session_id)
                continue
            meant = set(names) <= set(names_of(known[0].who))
            if meant and known[0].begun_by(begun_by, self._clock.wall()):
                ended += self._erase(known[0])
                if self.on_end is not None:
                    self.on_end(known[0])
        return ended

    def _with_one_more(self, there: Listed, session_id: str, ends: float, now: float, share: int) -> Listed:
        """Count one more, unless there are as many as may be that are alive."""
        sessions = {id_: end for id_, end in there.sessions.items() if end > now}
        if len(sessions) >= share:
            ids = list(sessions)
            alive = self._store.read_many([(KIND, self._name(id_)) for id_ in ids])
            sessions = {id_: sessions[id_] for id_, record in zip(ids, alive, strict=True) if record is not None}
        if len(sessions) >= share:
            raise StoreUnavailable(self._store.label, "full", "as many sessions as may be are kept already")
        return Listed({**sessions, session_id: ends}, there.ended)

    def _erase(self, session: Session) -> bool:
        erased = self._store.erase(KIND, self._name(session.id))
        self._recent.end(session.id)
        # It is over; that lists still name it does no harm.
        with suppress(StoreUnavailable):
            guests = (_GUESTS,) if session.who.provider == GUEST else ()
            for name in (*names_of(session.who), _counter(session.id), *guests):
                self._lists.remove(name, session.id)
        return erased

    def _name(self, session_id: str) -> str:
        return f"{session_id} {self._application}".rstrip()

    def _replace(self, found: Found, changed: Session) -> Session | None:
        """Write what was changed, unless somebody else has changed or ended the session, or the store fails."""
        ttl, mark = changed.left(self.options, self._clock.wall()), self._recent.mark()
        try:
            version = self._store.write(KIND, self._name(changed.id), changed.dumps(), ttl=ttl, expected=found.version)
        except StoreUnavailable:
            return None
        if version is None:
            self._recent.drop(changed.id)
            return None
        self._recent.put(changed, version, mark)
        return changed

    def _read(self, session_id: str) -> tuple[Session, str] | None:
        mark = self._recent.mark()
        record = self._store.read(KIND, self._name(session_id))
        session = None if record is None else Session.loads(record.value)
        if record is None or session is None:
            self._recent.drop(session_id)
            return None
        self._recent.put(session, record.version, mark)
        return session, record.version


def _counter(session_id: str) -> str:
    return f"all {sum(session_id.encode()) % _COUNTERS}"


def _marked(there: Listed, at: float) -> Listed | None:
    return None if there.ended == at else replace(there, ended=at)
