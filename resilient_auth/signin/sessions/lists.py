"""Lists of sessions in the store, by which they are counted, and found to be ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from ..._fleet.bodies import finite, unreadable
from ...errors import StoreUnavailable
from ...store import Store

__all__ = ["Listed", "Lists"]

KIND: Final = "session-list"
#: Writers at the same time that one waits for, at most.
_TRIES: Final = 32


@dataclass(frozen=True, slots=True)
class Listed:
    """What one list holds.

    Args:
        sessions: When each session is over at the latest, by its id, the oldest first.
        ended: When all that had begun were ended; 0 for never.
    """

    sessions: dict[str, float] = field(default_factory=dict)
    ended: float = 0.0

    def with_one(self, session_id: str, ends: float, now: float) -> Listed:
        """Take in one more, and leave out what is over."""
        sessions = {id_: end for id_, end in self.sessions.items() if end > now}
        return Listed({**sessions, session_id: ends}, self.ended)


class Lists:
    """Change lists one step at a time, whoever else does.

    Args:
        store: Where they are.
        life: Seconds for which one is kept after it was changed.
        application: Whose they are.
    """

    def __init__(self, store: Store, life: float, application: str = "") -> None:
        self._application = application
        self._store = store
        self._life = life

    def read(self, name: str) -> Listed:
        """Read a list; an empty one where there is none.

        Raises:
            StoreUnavailable: The store can't tell, or a newer release wrote it.
        """
        return self._read(name)[0]

    def change(self, name: str, how: Callable[[Listed], Listed | None]) -> Listed:
        """Change a list.

        Args:
            name: Which one.
            how: Makes the new list of the one that is there, None where it stays; called again where another writer
                came between.

        Returns:
            What is there now.

        Raises:
            StoreUnavailable: The store failed, or others write there all the time.
        """
        for _ in range(_TRIES):
            there, version = self._read(name)
            changed = how(there)
            if changed is None:
                return there
            body = json.dumps([list(changed.sessions.items()), changed.ended], separators=(",", ":")).encode()
            if self._store.write(KIND, self._name(name), body, ttl=self._life, expected=version) is not None:
                return changed
        raise StoreUnavailable(self._store.label, "busy", "others write the same list of sessions all the time")

    def remove(self, name: str, session_id: str) -> None:
        """Take a session off a list."""

        def without(there: Listed) -> Listed | None:
            if session_id not in there.sessions:
                return None
            return replace(there, sessions={id_: end for id_, end in there.sessions.items() if id_ != session_id})

        self.change(name, without)

    def _read(self, name: str) -> tuple[Listed, str | None]:
        record = self._store.read(KIND, self._name(name))
        if record is None:
            return Listed(), None
        try:
            sessions, ended = json.loads(record.value)
            return Listed({str(id_): finite(end) for id_, end in sessions}, finite(ended)), record.version
        except (ValueError, TypeError, RecursionError):
            # It says which sessions were ended: nobody goes by half of it.
            raise unreadable(self._store) from None

    def _name(self, name: str) -> str:
        return f"{name} {self._application}".rstrip()
