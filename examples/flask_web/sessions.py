"""Sessions that roll: renewed by activity, longer-lived in an outage, over at sign-out or at the absolute limit (G13).

They are kept here and not in a cookie: they survive a restart, hold more than a cookie, and end when they are ended.
"""

import hashlib
import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resilient_auth.clock import Clock


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long sessions live, in seconds. That an ID token has expired ends none: it told who signed in, and when."""

    #: Without any activity; and while nobody can sign in again.
    idle: float = 30 * 60
    idle_in_outage: float = 4 * 3600
    #: Since the sign-in, with activity; a session that is older goes on while nobody can sign in again.
    lifetime: float = 8 * 3600
    #: Since the sign-in, whatever happens.
    absolute: float = 24 * 3600

    def allow(self, started: float, seen: float, now: float, nobody_can_sign_in: Callable[[], bool]) -> bool:
        """Return whether a session goes on. The provider is looked at only where that makes a difference."""
        if now - started >= self.absolute or now - seen >= max(self.idle, self.idle_in_outage):
            return False
        return (now - started < self.lifetime and now - seen < self.idle) or nobody_can_sign_in()


@dataclass
class Session:
    """A signed-in user's."""

    key: str
    user: str
    started: float
    seen: float
    #: What the application keeps in it: JSON, and no token. Tokens are in the token store, which is sealed.
    data: dict[str, Any] = field(default_factory=dict)


class Sessions:
    """Keep sessions in a file, for the processes of one machine."""

    def __init__(
        self,
        path: Path,
        *,
        limits: Limits,
        nobody_can_sign_in: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._path = path
        self._limits = limits
        self._nobody_can_sign_in = nobody_can_sign_in
        self._clock = clock
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        with self._database() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS sessions(key TEXT PRIMARY KEY, user TEXT NOT NULL,"
                " started REAL NOT NULL, seen REAL NOT NULL, data TEXT NOT NULL)"
            )

    def start(self, user: str, data: dict[str, Any]) -> str:
        """Begin a session at a sign-in; return its secret, for the cookie."""
        secret, now = secrets.token_urlsafe(32), self._clock.wall()
        with self._database() as database:
            oldest = now - max(self._limits.idle, self._limits.idle_in_outage), now - self._limits.absolute
            database.execute("DELETE FROM sessions WHERE seen < ? OR started < ?", oldest)
            database.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", (_key(secret), user, now, now, json.dumps(data))
            )
        return secret

    def find(self, secret: str) -> Session | None:
        """Find the session of a cookie, and renew it; None where it is over."""
        with self._database() as database:
            row = database.execute("SELECT * FROM sessions WHERE key = ?", (_key(secret),)).fetchone()
        if row is None:
            return None
        session, now = Session(*row[:4], json.loads(row[4])), self._clock.wall()
        if not self._limits.allow(session.started, session.seen, now, self._nobody_can_sign_in):
            self.end(session)
            return None
        # Not at each request: a page and its pictures are one activity.
        if now - session.seen >= min(30.0, self._limits.idle / 10):
            session.seen = now
            with self._database() as database:
                database.execute("UPDATE sessions SET seen = ? WHERE key = ?", (now, session.key))
        return session

    def save(self, session: Session) -> None:
        """Keep what was changed in a session's data. One that was ended meanwhile stays ended."""
        with self._database() as database:
            database.execute("UPDATE sessions SET data = ? WHERE key = ?", (json.dumps(session.data), session.key))

    def end(self, session: Session) -> bool:
        """End a session; tell whether it was its user's last one."""
        with self._database() as database:
            database.execute("DELETE FROM sessions WHERE key = ?", (session.key,))
            others = database.execute("SELECT count(*) FROM sessions WHERE user = ?", (session.user,)).fetchone()
        return bool(others[0] == 0)

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        # A connection for each use: requests run on many threads.
        with closing(sqlite3.connect(self._path, timeout=5.0)) as database, database:
            yield database


def _key(secret: str) -> str:
    # Who reads the file can't make a cookie of it.
    return hashlib.sha256(secret.encode()).hexdigest()
