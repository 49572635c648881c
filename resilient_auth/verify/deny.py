"""An emergency deny-list, which works while the provider is unreachable."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from os import PathLike, fspath
from typing import Final

from .._engine.acquire import patience_of
from .._engine.engine import Engine
from .._engine.single_flight import Flight, Outcome, WaitFor
from .._policy.checks import is_path, require, require_function, require_number
from .._process import forks
from ..errors import ConfigurationError, ProviderUnavailable
from ..events import DenyListRejected, emit
from .errors import InvalidToken
from .jose.compact import LARGEST_TOKEN, LONGEST_KID
from .keys.documents import read_owners
from .rules.revoked import Revocation, Revoked, plain_id

__all__ = ["Denied", "DenyFile", "DenyList"]

#: Bytes of a file, at most.
_LARGEST: Final = 64 * 1024 * 1024
_NAMES: Final = ("kids", "oids", "sids", "token_ids")
#: What stands between two values of JSON that is well-formed.
_BETWEEN = re.compile(r"[ \t\r\n,:]*")
#: Seconds for which a new file isn't known by its times: those may be too coarse to tell two writes apart.
_SETTLED: Final = 2.0
#: The share of the time between two looks after which a call begins the next one, and waits for nothing.
_AHEAD: Final = 0.8


@dataclass(frozen=True, slots=True)
class Denied:
    """What is denied at one moment; swapped whole."""

    version: int = 0
    kids: frozenset[str] = frozenset()
    oids: frozenset[str] = frozenset()
    sids: frozenset[str] = frozenset()
    token_ids: frozenset[str] = field(default=frozenset(), repr=False)

    def match(self, kid: str | None, people: Iterable[str | None], sid: object, ids: Iterable[object]) -> str:
        """Return what of a token is on the list: `kid`, `oid`, `sid` or `token_id`; "" for nothing.

        Raises:
            InvalidToken: It has something in the place of an id that can't be compared with those on the list.
        """
        looked_at: tuple[tuple[str, Iterable[object], frozenset[str]], ...] = (
            ("kid", (kid,), self.kids),
            ("oid", people, self.oids),
            ("sid", (sid,), self.sids),
            ("token_id", ids, self.token_ids),
        )
        return next((name for name, values, listed in looked_at if _among(values, listed)), "")


def _among(values: Iterable[object], listed: frozenset[str]) -> bool:
    return bool(listed) and any(plain_id(_id(value)) in listed for value in values if value is not None)


def _id(value: object) -> str:
    """Return an id as a text: some providers number their sessions and tokens."""
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    raise InvalidToken("malformed", "the token's session or token id can't be compared with the deny-list")


class DenyList:
    """Refuse tokens by key, user, session or token id, at once and without any network. May be changed at any time.

    What is on it is refused whatever else holds: a cached verification, a valid signature, a grace. Blanks around an id
    mean nothing, and a GUID may be written in any way: in upper case, in braces, without hyphens.

    Args:
        kids: Keys that are no longer trusted: one that leaked, for example.
        oids: Users and service principals, by `oid`, or by `sub` where a provider knows no `oid`.
        sids: Sessions, by `sid`.
        token_ids: Tokens, by `uti` or `jti`.
        file: A JSON file with any of these four names, each with a list of strings. It is read here, and again when it
            changed, before the next token is judged; while it can't be read, what was read last holds.
        look_every: Seconds between two looks at the file, at least. A token that comes later than that after the last
            look waits for one.
        check: Called with each token's claims, cached or not; True refuses it. It must be quick and must not wait for
            a network: it runs on the caller's thread, or event loop. When it raises, the token can't be verified.

    Raises:
        ConfigurationError: An argument isn't of its kind, holds what no token could have, or the file can't be read.
    """

    def __init__(
        self,
        *,
        kids: Iterable[str] = (),
        oids: Iterable[str] = (),
        sids: Iterable[str] = (),
        token_ids: Iterable[str] = (),
        file: str | PathLike[str] | None = None,
        look_every: float = 5.0,
        check: Callable[[Mapping[str, object]], bool] | None = None,
    ) -> None:
        require_number("look_every", look_every, low=0.1, high=3600.0)
        if check is not None:
            require_function("check", check, of="a token's claims")
        require(file is None or is_path(file), f"file must be the path of a JSON file, not {type(file).__name__}")
        self.look_every = look_every
        self.check = check
        self.file = None if file is None else fspath(file)
        self._own: Mapping[str, frozenset[str]] = dict.fromkeys(_NAMES, frozenset())
        self._listed: Mapping[str, frozenset[str]] = {}
        #: What tells the file that was looked at last from another one; None where only its content does.
        self._known: tuple[int, ...] | None = None
        self._looks = 0
        self._taken = 0
        #: What was issued up to a time, by whose it is.
        self.revoked = Revoked()
        self.after_fork()
        forks.renew_in_children(self)
        self.current = Denied()
        self._change(frozenset.union, kids, oids, sids, token_ids)
        if self.file is not None:
            try:
                self.look()
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"file can't be read as a deny-list: {error}") from None

    def after_fork(self) -> None:
        """Take a lock of its own in a forked child."""
        self._lock = threading.Lock()

    def add(
        self,
        *,
        kids: Iterable[str] = (),
        oids: Iterable[str] = (),
        sids: Iterable[str] = (),
        token_ids: Iterable[str] = (),
    ) -> None:
        """Deny these too, from the next verification on."""
        self._change(frozenset.union, kids, oids, sids, token_ids)

    def remove(
        self,
        *,
        kids: Iterable[str] = (),
        oids: Iterable[str] = (),
        sids: Iterable[str] = (),
        token_ids: Iterable[str] = (),
    ) -> None:
        """Take these off again; what the file lists stays."""
        self._change(frozenset.difference, kids, oids, sids, token_ids)

    def revoke(self, several: Iterable[Revocation], now: float) -> None:
        """Refuse what was issued to these up to their times, from the next verification on; see `Revocations`."""
        forks.notice()
        with self._lock:
            changed = [self.revoked.add(one, now) for one in several]
        if any(changed):
            self._publish()

    def look(self) -> bool:
        """Look at the file, and read it again where it may have changed; return whether it has.

        Raises:
            OSError: It can't be read.
            ValueError: It isn't what it should be; the message names the line, and quotes nothing.
        """
        if self.file is None:
            return False
        with self._lock:
            self._looks += 1
            mine = self._looks
        # Before it is read: what is written meanwhile makes another file of it.
        found = os.stat(self.file)
        known = _identity_of(found) if time.time() - max(found.st_mtime, found.st_ctime) > _SETTLED else None
        if known is not None and known == self._known:
            return False
        try:
            listed = _parsed(read_owners(self.file, _LARGEST))
        except ValueError:
            # Reading the same file again would help nobody.
            self._take(mine, known, None)
            raise
        return self._take(mine, known, listed)

    def _take(self, mine: int, known: tuple[int, ...] | None, listed: Mapping[str, frozenset[str]] | None) -> bool:
        """Take in what a look found; return whether the list has changed."""
        with self._lock:
            # Of two who read at the same time, the one who began later knows better.
            if mine < self._taken:
                return False
            self._taken, self._known = mine, known
            if listed is None or listed == self._listed:
                return False
            self._listed = listed
        self._publish()
        return True

    def _change(self, how: Callable[..., frozenset[str]], *given: Iterable[str]) -> None:
        forks.notice()
        checked = {name: _strings(name, values) for name, values in zip(_NAMES, given, strict=True)}
        with self._lock:
            self._own = {name: how(self._own[name], checked[name]) for name in _NAMES}
        self._publish()

    def _publish(self) -> None:
        with self._lock:
            both = {name: self._own[name] | self._listed.get(name, frozenset()) for name in _NAMES}
            self.current = Denied(self.current.version + 1, **both)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {len(getattr(self.current, name))}" for name in _NAMES)
        return f"DenyList({sizes})"


class DenyFile:
    """Have a deny-list's file looked at before it judges: what is older than the owner wants judges nobody.

    Args:
        engine: Whose workers read it.
        deny: The list.
        wait: Seconds that a caller waits for a file that must be read, at most.
    """

    def __init__(self, engine: Engine, deny: DenyList, wait: float) -> None:
        self._engine = engine
        self._deny = deny
        self._wait = wait
        #: On the monotonic clock: from when on a call begins a look, and from when on it waits for one.
        self._ahead_at = self._due_at = -inf

    def is_due(self, now: float) -> bool:
        """Return whether a look must be waited for. Where there is traffic it is begun, and over, before that."""
        if now < self._ahead_at:
            return False
        if now < self._due_at:
            self._ahead_at = self._due_at
            self._look(now, self._due_at + self._wait)  # who comes when it is due waits for this one
            return False
        return self._deny.file is not None

    def reading(self) -> Generator[WaitFor, Outcome | None, None]:
        """Have it looked at where that is due, once for all who wait; the drivers do the waiting."""
        now = self._engine.clock.monotonic()
        if not self.is_due(now):
            return
        patience = patience_of(self._wait)
        outcome = yield WaitFor(self._look(now, now + patience), patience)
        first = self._due_at <= now  # of those who waited
        # Whatever came of it: a file that can't be read holds tokens up once an interval, and not each of them.
        self._looked(now)
        if first and (outcome is None or outcome.error is not None):
            self._report("timeout", "it couldn't be read in time")

    def _looked(self, began: float) -> None:
        every = self._deny.look_every
        self._ahead_at, self._due_at = began + _AHEAD * every, began + every

    def _look(self, now: float, ends: float) -> Flight:
        """Have a worker look at it: a file system that doesn't answer holds up no caller's thread, and no loop."""
        engine = self._engine
        flight, mine = engine.flights.join(("deny-list", id(self._deny)), ends)
        if mine:
            try:
                engine.run("deny-list", lambda: self._read(flight, now), flight)
            except ProviderUnavailable as error:
                engine.flights.end(flight)
                flight.land(Outcome(error=error))
        return flight

    def _read(self, flight: Flight, began: float) -> None:
        """Read it, on a worker."""
        code = detail = ""
        try:
            self._deny.look()
        except OSError as error:
            code, detail = "unreadable", type(error).__name__
        except ValueError as error:
            code, detail = "malformed", str(error)
        finally:
            self._looked(began)
            self._engine.flights.end(flight)
            flight.land(Outcome())
        if code:
            self._report(code, detail)

    def _report(self, code: str, detail: str) -> None:
        emit(DenyListRejected(at=self._engine.clock.wall(), target=str(self._deny.file), code=code, detail=detail))


def _identity_of(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _strings(name: str, values: object) -> frozenset[str]:
    hint = f"{name} must be a collection of strings, not {type(values).__name__}"
    require(not isinstance(values, (str, bytes)) and isinstance(values, Iterable), hint)
    return frozenset(_entry(name, value) for value in values)  # type: ignore[attr-defined]


def _entry(name: str, value: object) -> str:
    """Check one id, which no message quotes: it may be a person's."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be strings, not {type(value).__name__}")
    plain = plain_id(value)
    require(bool(plain), f"{name} has an entry that is blank")
    longest = LONGEST_KID if name == "kids" else LARGEST_TOKEN
    require(len(plain) <= longest, f"{name} has an entry of {len(plain)} characters, and no token has such a long one")
    require(
        not any("\ud800" <= c <= "\udfff" for c in plain), f"{name} has an entry that is no text (half a character)"
    )
    require(plain[0] != "{" and plain[-1] != "}", f"{name} has an entry with braces that isn't a GUID in braces")
    return plain


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("it has a name twice, of which one would count for nothing")
    return members


def _parsed(content: bytes) -> dict[str, frozenset[str]]:
    try:
        body = json.loads(content, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    if not isinstance(body, dict) or set(body) - set(_NAMES):
        raise ValueError(f"it must be a JSON object with no other names than {', '.join(_NAMES)}")
    return {name: _listed_in(content, name, values) for name, values in body.items()}


def _listed_in(content: bytes, name: str, values: object) -> frozenset[str]:
    if not isinstance(values, list):
        raise ValueError(f"{name} must be a list of strings, not {type(values).__name__}")  # noqa: TRY004 - a file's text
    found: set[str] = set()
    for place, value in enumerate(values):
        try:
            found.add(_entry(name, value))
        except ConfigurationError as error:
            line = _line_of(content.decode(json.detect_encoding(content)), name, place)
            raise ValueError(f"line {line}: {error}") from None
    return frozenset(found)


def _line_of(text: str, name: str, place: int) -> int:
    """Find the line of a list's entry in a text that was read as JSON before."""
    decode = json.JSONDecoder().raw_decode
    start = text.index("{") + 1
    while True:
        member, end = decode(text, _past(text, start))
        start = _past(text, end)
        if member == name:
            break
        _, start = decode(text, start)
    start = _past(text, start + 1)
    for _ in range(place):
        _, end = decode(text, start)
        start = _past(text, end)
    return text.count("\n", 0, start) + 1


def _past(text: str, start: int) -> int:
    between = _BETWEEN.match(text, start)
    return start if between is None else between.end()
