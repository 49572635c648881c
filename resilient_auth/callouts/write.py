"""One write that is made in the background: what it is, how it is kept, and what can be said about it."""

from __future__ import annotations

import inspect
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Protocol

from ..errors import ConfigurationError, ResilientAuthError
from ..store import Record

__all__ = ["UNREADABLE", "DeadLetter", "Kept", "Target", "Undeliverable", "Write", "WritesFull", "carry_out"]

_LARGEST: Final = 256 * 1024
#: The code of a record that this release can't read: a later one's, say.
UNREADABLE: Final = "malformed"


class WritesFull(ResilientAuthError):
    """Say that as many writes wait as may: this one wasn't taken."""

    code = "writes_full"


class Undeliverable(ResilientAuthError):
    """Raise this in a target for a write that will never succeed: it becomes a dead letter at once.

    Args:
        code: Why, as a short stable name; it is shown in health and events.
    """

    code = "undeliverable"

    def __init__(self, code: str = "undeliverable") -> None:
        super().__init__(f"the write can't be made: {code}")
        self.code = code  # type: ignore[misc]

    def __reduce__(self) -> tuple[object, ...]:
        return Undeliverable, (self.code,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """What a target is given.

    Attributes:
        key: The same each time that this write comes, for the target to make it once: an idempotency key.
        payload: What was given to `put`; personal, maybe.
        attempt: 1 for the first one.
    """

    key: str = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)
    attempt: int = 1


class Target(Protocol):
    """Makes a write, or hands it to a queue of the owner's: a function will do."""

    def __call__(self, write: Write, /) -> object:
        """Make it; return when it is made. Whatever it raises has it tried again later, `Undeliverable` excepted."""


def carry_out(target: Target, write: Write) -> None:
    """Have a target make a write.

    Raises:
        ConfigurationError: It returned what would make it if somebody ran or awaited that, and so has made nothing yet.
    """
    returned: Any = target(write)
    if inspect.isawaitable(returned) or inspect.isgenerator(returned) or inspect.isasyncgen(returned):
        getattr(returned, "close", int)()
        raise ConfigurationError("target returned something to be awaited, which nobody does: it must make the write")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A write that was given up.

    Attributes:
        key: Its idempotency key.
        payload: What it says; personal, maybe.
        code: Why.
        taken_at: When it was taken, in seconds since the epoch.
        attempts: How often it was tried.
    """

    key: str = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)
    code: str
    taken_at: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A write as the store has it; times are in seconds since the epoch."""

    payload: Mapping[str, Any] = field(repr=False)
    taken_at: float
    #: Nobody tries it before.
    due: float
    attempts: int = 0
    #: Of these, those that failed while the target worked for others; and when the last one of all failed.
    blamed: int = 0
    failed_at: float = 0.0
    #: Whether somebody has claimed it and not told yet what came of it.
    begun: bool = False
    #: Why it was given up; "" for one that wasn't.
    dead: str = ""
    #: Tells it from an earlier write with its key.
    id: str = ""

    @classmethod
    def taken(cls, payload: Mapping[str, Any], now: float, due: float) -> Kept:
        """Make one of what was given, which is as the store will have it, whatever becomes of that.

        Raises:
            ConfigurationError: The payload isn't JSON, or is too large.
        """
        given = cls(payload, now, due, id=secrets.token_hex(8))
        said: dict[str, Any] = json.loads(given.written())["payload"]
        return replace(given, payload=said)

    @classmethod
    def of(cls, record: Record) -> Kept:
        """Read one; one that can't be read counts as given up, and isn't written anew."""
        try:
            said = json.loads(record.value)
            # A newer release may have written more.
            kept = cls(**{each.name: said[each.name] for each in fields(cls) if each.name in said})
        except (ValueError, TypeError, RecursionError):
            return _UNREADABLE
        numbers = (kept.taken_at, kept.due, kept.attempts, kept.blamed, kept.failed_at)
        fits = isinstance(kept.payload, dict) and all(isinstance(one, (int, float)) for one in numbers)
        return kept if fits and isinstance(kept.dead, str) and isinstance(kept.id, str) else _UNREADABLE

    def written(self) -> bytes:
        """Return what the store is given.

        Raises:
            ConfigurationError: The payload isn't JSON, or is too large.
        """
        members = {each.name: getattr(self, each.name) for each in fields(self)} | {"payload": dict(self.payload)}
        try:
            said = json.dumps(members, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"payload must be JSON ({type(error).__name__})") from None
        if len(said) > _LARGEST:
            raise ConfigurationError(f"payload must be smaller than {_LARGEST} bytes: keep what is large elsewhere")
        return said

    def with_(self, **changed: Any) -> Kept:
        """Return it with some of it changed."""
        return replace(self, **changed)

    def write(self, key: str) -> Write:
        """Return what a target is given, which may change it as it likes."""
        return Write(key=key, payload=json.loads(json.dumps(self.payload)), attempt=self.attempts + 1)

    def letter(self, key: str) -> DeadLetter:
        """Return it as the dead letter that it is."""
        return DeadLetter(key=key, payload=self.payload, code=self.dead, taken_at=self.taken_at, attempts=self.attempts)


_UNREADABLE: Final = Kept({}, 0.0, 0.0, dead=UNREADABLE)
