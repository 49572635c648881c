"""An emergency list of what is no longer believed, which works with the provider gone."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike, fspath

from .. import _forks
from .._policy.checks import require, require_number
from .._policy.living import Living
from ..errors import ConfigurationError
from .documents import read_owners

__all__ = ["Denied", "DenyList", "deny_lists"]

#: Bytes of a file, at most.
_LARGEST = 64 * 1024 * 1024
_NAMES = ("kids", "oids", "sids", "token_ids")


@dataclass(frozen=True, slots=True)
class Denied:
    """What is denied at one moment; swapped whole."""

    version: int = 0
    kids: frozenset[str] = frozenset()
    oids: frozenset[str] = frozenset()
    sids: frozenset[str] = frozenset()
    token_ids: frozenset[str] = field(default=frozenset(), repr=False)

    def match(self, kid: str | None, people: Iterable[str | None], sid: str | None, ids: Iterable[object]) -> str:
        """Tell what of a token is on the list: `kid`, `oid`, `sid` or `token_id`; "" for nothing."""
        if kid in self.kids:
            return "kid"
        if self.oids and any(who in self.oids for who in people):
            return "oid"
        if sid is not None and sid in self.sids:
            return "sid"
        if self.token_ids and any(one in self.token_ids for one in ids):
            return "token_id"
        return ""


class DenyList:
    """Refuse tokens by key, user, session or token id, at once and without any network. May be changed at any time.

    What is on it is refused whatever else holds: a cached verification, a valid signature, a grace.

    Args:
        kids: Keys that aren't believed any more: one that leaked, for example.
        oids: Users and service principals, by `oid`, or by `sub` where a provider knows no `oid`.
        sids: Sessions, by `sid`.
        token_ids: Tokens, by `uti` or `jti`.
        file: A JSON file with any of these four names, each with a list of strings. It is read here, and again behind
            when it changed; while it can't be read, what was read last holds.
        look_every: Seconds between two looks at the file, at least.
        check: Called with each token's claims, cached or not; True refuses it. It must be quick and must not wait for
            a network: it runs on the caller's thread, or event loop. When it raises, the token can't be verified.

    Raises:
        ConfigurationError: An argument isn't of its kind, or the file can't be read.
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
        require(check is None or callable(check), "check must be a function that takes a token's claims")
        self.look_every = look_every
        self.check = check
        self.file = None if file is None else fspath(file)
        self._own = {
            "kids": _strings("kids", kids),
            "oids": _strings("oids", oids),
            "sids": _strings("sids", sids),
            "token_ids": _strings("token_ids", token_ids),
        }
        self._listed: Mapping[str, frozenset[str]] = {}
        self._read: bytes | None = None
        self.renew_lock()
        self.current = Denied()
        if self.file is not None:
            try:
                self.look()
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"file can't be read as a deny-list: {error}") from None
        self._publish()
        deny_lists.add(self)

    def renew_lock(self) -> None:
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

    def look(self) -> bool:
        """Read the file again; tells whether it has changed.

        Raises:
            OSError: It can't be read.
            ValueError: It isn't what it should be.
        """
        if self.file is None:
            return False
        content = read_owners(self.file, _LARGEST)
        digest = hashlib.sha256(content).digest()
        if digest == self._read:
            return False
        listed = _parsed(content)
        with self._lock:
            self._listed, self._read = listed, digest
        self._publish()
        return True

    def _change(self, how: Callable[..., frozenset[str]], *given: Iterable[str]) -> None:
        _forks.notice()
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


#: Those that are alive, for forks.
deny_lists: Living[DenyList] = Living()


def _strings(name: str, values: object) -> frozenset[str]:
    hint = f"{name} must be a collection of strings, not {type(values).__name__}"
    require(not isinstance(values, (str, bytes)) and isinstance(values, Iterable), hint)
    found: frozenset[str] = frozenset(values)  # type: ignore[call-overload]
    require(all(isinstance(value, str) and value for value in found), hint)
    return found


def _parsed(content: bytes) -> dict[str, frozenset[str]]:
    try:
        body = json.loads(content)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    if not isinstance(body, dict) or set(body) - set(_NAMES):
        raise ValueError(f"it must be a JSON object with no other names than {', '.join(_NAMES)}")
    try:
        return {name: _strings(name, values) for name, values in body.items()}
    except (ConfigurationError, TypeError) as error:
        raise ValueError(str(error)) from error
