"""What was told and what is still to be sent: alerts, warnings, an outbox; in a store where there is one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..._fleet.bodies import finite, whole
from .rules import Key
from .values import KINDS, Alert

__all__ = ["Item", "State"]

#: Messages that wait to be sent, and credentials that owners were warned of; those beyond are forgotten, oldest first.
_MOST_ITEMS, _MOST_WARNED = 64, 1000


@dataclass(slots=True)
class Item:
    """A message that is to be sent."""

    id: str
    #: Seconds since the epoch: when it happened.
    at: float
    body: str
    tries: int = 0
    #: Seconds since the epoch: when the next attempt is due.
    due: float = 0.0


@dataclass(slots=True)
class State:
    """All of it; one that was read is changed in a copy, which is written whole."""

    alerts: dict[Key, Alert] = field(default_factory=dict)
    #: When the last alert of a kind and code ended.
    ended: dict[Key, float] = field(default_factory=dict)
    #: By credential, how many days ahead of its end its owner was warned last.
    warned: dict[str, int] = field(default_factory=dict)
    outbox: list[Item] = field(default_factory=list)
    #: The day on which it was written, so that it doesn't run out.
    day: int = 0

    def copy(self) -> State:
        """Return one of its own."""
        return copy.deepcopy(self)

    def warn(self, credential: str, mark: int) -> bool:
        """Note that an owner is warned; False where they were."""
        if self.warned.get(credential, mark + 1) <= mark:
            return False
        self.warned.pop(credential, None)
        self.warned[credential] = mark
        while len(self.warned) > _MOST_WARNED:
            del self.warned[next(iter(self.warned))]
        return True

    def post(self, item: Item) -> Item | None:
        """Have a message sent; returns one that isn't, since there are too many."""
        self.outbox.append(item)
        return self.outbox.pop(0) if len(self.outbox) > _MOST_ITEMS else None

    def to_json(self) -> dict[str, Any]:
        """Return it as a record holds it."""
        return {
            "alerts": [[a.kind, a.code, a.since, a.detail] for a in self.alerts.values()],
            "ended": [[kind, code, at] for (kind, code), at in self.ended.items()],
            "warned": self.warned,
            "outbox": [[i.id, i.at, i.body, i.tries, i.due] for i in self.outbox],
            "day": self.day,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> State:
        """Read it.

        Raises:
            ValueError: It isn't of this form.
        """
        try:
            alerts = [
                Alert(kind=kind, code=str(code), since=finite(since), detail=str(detail))
                for kind, code, since, detail in found["alerts"]
                if kind in _KNOWN
            ]
            return cls(
                alerts={(alert.kind, alert.code): alert for alert in alerts},
                ended={(kind, str(code)): finite(at) for kind, code, at in found["ended"] if kind in _KNOWN},
                warned={str(name): whole(mark) for name, mark in found["warned"].items()},
                outbox=[
                    Item(str(i), finite(at), str(b), whole(n), finite(due)) for i, at, b, n, due in found["outbox"]
                ],
                day=whole(found["day"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("this isn't the state of a watch") from error


_KNOWN: Final = frozenset(KINDS)
