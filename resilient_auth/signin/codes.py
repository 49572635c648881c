"""One-time codes by the owner's own sender: a way in while no provider can be reached (G12)."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from .._fleet.bodies import finite, unreadable, whole
from .._policy.checks import require, require_function, require_number, require_whole
from ..clock import Clock
from ..errors import StoreUnavailable
from ..store import Store

__all__ = ["CodeBook", "OneTimeCodes"]

KIND: Final = "sign-in-code"
_LONGEST_ADDRESS: Final = 254
_RETRIES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTimeCodes:
    """Choose how users whom the application knows sign in by a code while no provider can be reached (G12).

    Args:
        find: Given an address as it was typed in, returns the user's claims, `sub` among them, or None for who isn't
            known; whoever asks isn't told which.
        send: Given the address and the code, sends it: by mail or by text message. Both are called on a thread, for
            nobody who waits.
        life: Seconds that a code is good.
        digits: How long it is.
        tries: Guesses at one code.
        per_address: Codes for one address within an hour.
        per_hour: Codes in all within an hour, for the whole fleet.
    """

    find: Callable[[str], Mapping[str, Any] | None] = field(repr=False)
    send: Callable[[str, str], object] = field(repr=False)
    life: float = 600.0
    digits: int = 8
    tries: int = 5
    per_address: int = 3
    per_hour: int = 1000

    def __post_init__(self) -> None:
        require_function("find", self.find, of="an address")
        require_function("send", self.send, of="an address and a code")
        require_number("life", self.life, low=60.0, high=3600.0)
        require_whole("digits", self.digits, low=6, high=12)
        require_whole("tries", self.tries, low=1, high=10)
        require_whole("per_address", self.per_address, low=1, high=20)
        require_whole("per_hour", self.per_hour, low=1, high=1_000_000)


class CodeBook:
    """Keep codes in the store: hashed, each good once, bounded in number and in guesses.

    Args:
        options: The owner's.
        store: Where.
        clock: Gives the time.
        application: Whose they are: a store may have those of several, none of which is another one's.
    """

    def __init__(self, options: OneTimeCodes, store: Store, clock: Clock, *, application: str) -> None:
        self.options = options
        self._application = application
        self._store = store
        self._clock = clock

    def begin(self, address: str) -> None:
        """Send a code, if the address is known and has had few enough; run on a thread, for nobody who waits.

        Raises:
            StoreUnavailable: The code can't be kept; none is sent.
            ConfigurationError: What was found doesn't say who it is.
        """
        if not 0 < len(address) <= _LONGEST_ADDRESS or not address.isprintable():
            return
        claims = self.options.find(address)
        if claims is None:
            return
        require(bool(claims.get("sub")), "find must return claims with a sub, by which the user is known")
        # An address that isn't known leaves no trace here.
        code = "".join(secrets.choice("0123456789") for _ in range(self.options.digits))
        salt = secrets.token_hex(16)
        now = self._clock.wall()
        entry = {
            "hash": _hashed(salt, code),
            "salt": salt,
            "until": now + self.options.life,
            "left": self.options.tries,
        }
        if self._one_more(
            _named(address), self.options.per_address, {**entry, "claims": dict(claims)}
        ) and self._one_more("all", self.options.per_hour, {}):
            self.options.send(address, code)

    def redeem(self, address: str, code: str) -> Mapping[str, Any] | None:
        """Return the claims of the user of an address with this code, which isn't good a second time; None for none.

        Raises:
            StoreUnavailable: The store can't tell.
        """
        name = _named(address)
        for _ in range(_RETRIES):
            body, version = self._read(name)
            entry = body["entry"]
            if not entry or entry["left"] < 1 or self._clock.wall() >= entry["until"]:
                return None
            good = hmac.compare_digest(entry["hash"], _hashed(entry["salt"], code))
            left = {**body, "entry": None if good else {**entry, "left": entry["left"] - 1}}
            # A guess counts before it is judged: of many at the same time, each takes one away.
            value = json.dumps(left).encode()
            if self._store.write(KIND, self._key(name), value, ttl=3600.0, expected=version) is None:
                continue
            claims: Mapping[str, Any] | None = entry["claims"] if good else None
            return claims
        return None

    def _one_more(self, name: str, most: int, entry: Mapping[str, Any]) -> bool:
        """Count one more within the hour, and keep what belongs to it; return whether there may be one."""
        for _ in range(_RETRIES):
            now = self._clock.wall()
            body, version = self._read(name)
            sent = [at for at in body["sent"] if now - at < 3600.0]
            if len(sent) >= most:
                return False
            value = json.dumps({"sent": [*sent, now], "entry": entry}).encode()
            if self._store.write(KIND, self._key(name), value, ttl=3600.0, expected=version) is not None:
                return True
        raise StoreUnavailable(self._store.label, "busy", "others write there all the time")

    def _read(self, name: str) -> tuple[dict[str, Any], str | None]:
        """Return what is kept under a name, and its version.

        Raises:
            StoreUnavailable: The store can't tell, or a newer release wrote it: whoever guesses at that isn't let in.
        """
        record = self._store.read(KIND, self._key(name))
        if record is None:
            return {"sent": [], "entry": {}}, None
        try:
            body = json.loads(record.value)
            entry = body["entry"] or {}
            if entry:
                fits = all(isinstance(entry[each], str) for each in ("hash", "salt")) and dict(entry["claims"])
                entry = {**entry, "until": finite(entry["until"]), "left": whole(entry["left"])} if fits else None
            sent = [finite(at) for at in body["sent"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            entry = None
        if entry is None:
            raise unreadable(self._store)
        return {"sent": sent, "entry": entry}, record.version

    def _key(self, name: str) -> str:
        return f"{name} {self._application}"


def _named(address: str) -> str:
    return "to " + sha256(address.strip().lower().encode()).hexdigest()


def _hashed(salt: str, code: str) -> str:
    return sha256(f"{salt} {code.strip()}".encode()).hexdigest()
