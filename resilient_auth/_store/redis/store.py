"""A store in Redis or Valkey, for the processes of a fleet (extra `redis`).

Every comparison is one command or one Lua script on one key's slot, so that it holds in a cluster too. Lives of values
and leases are measured by the server: clocks of the fleet may disagree.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from ..._engine.workers import Workers
from ..._policy.checks import require, require_number
from ..._process import forks
from ...clock import Clock, Jitter, SystemClock, system_jitter
from ...errors import Overloaded
from ...store import ANY, BackendFailed, Expected
from ..sealing.keys import KeySource
from ..sealing.sealed import SealedStore
from .answers import connection_was_lost, failure, is_a, is_read_only
from .clients import CALLS_AT_ONCE, connector, drop_idle, given

__all__ = ["RedisBackend", "RedisStore"]

_T = TypeVar("_T")
_CLOCK = SystemClock()

#: Of how values and keys are laid out; another one lives under other keys.
_SCHEMA = 1
#: Hex digits before each value: its version.
_VERSION = 16
#: The version that is given for a key that holds something else than a string.
_OTHER_TYPE = "other-type"
_PAGE = 500
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")


class _Script:
    """A Lua script that the server is sent once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Any, keys: list[str], *arguments: object) -> Any:
        try:
            return client.evalsha(self._digest, len(keys), *keys, *arguments)
        except Exception as error:
            if not (is_a(error, "NoScriptError") or str(error).startswith("NOSCRIPT")):
                raise
            return client.eval(self._text, len(keys), *keys, *arguments)


_REPLACE = _Script("""
local there = redis.pcall('GETRANGE', KEYS[1], 0, 15)
if type(there) == 'table' then there = 'other-type' end
if there == string.sub(ARGV[2], 1, 16) then return 1 end
if there ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")
_DELETE = _Script("""
local kind = redis.call('TYPE', KEYS[1])['ok']
if kind == 'none' then return 0 end
local there = kind == 'string' and redis.call('GETRANGE', KEYS[1], 0, 15) or 'other-type'
if there ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")
# A lock without an end isn't one of ours. Its holder may ask twice: the first answer may have been lost. The clock in
# the fence keeps it growing when the server forgot the last one.
_LOCK = _Script("""
if redis.call('PTTL', KEYS[1]) == -1 then redis.call('DEL', KEYS[1]) end
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return false end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
local last = redis.pcall('GET', KEYS[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local fence = math.max((type(last) == 'string' and tonumber(last) or 0) + 1, now)
local text = string.format('%.0f', fence)
redis.call('SET', KEYS[2], text, 'PX', 604800000)
return text
""")
_RELOCK = _Script("""
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")
_UNLOCK = _Script("""
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")


class RedisBackend:
    """Keep values in Redis or Valkey.

    Args:
        connect: Makes a client; called when one is first needed, and again in a forked child.
        owned: Whether that client is this backend's own, to be closed with it.
        prefix: What all keys start with.
        timeout: Seconds that a call may take, resolving, connecting and redirections included.
    """

    label = "redis"

    def __init__(self, connect: Callable[[], Any], *, owned: bool, prefix: str, timeout: float) -> None:
        self._connect = connect
        self._owned = owned
        self._prefix = f"{prefix}:v{_SCHEMA}:"
        self._timeout = timeout
        self._client: Any = None
        self.after_fork()
        forks.renew_in_children(self)

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Read a value and its version."""

        def read(client: Any) -> tuple[bytes, str] | None:
            try:
                found = client.get(self._key(key))
            except Exception as error:
                if str(error).startswith("WRONGTYPE"):
                    return b"", _OTHER_TYPE
                raise
            return None if found is None else (found[_VERSION:], found[:_VERSION].decode("latin-1"))

        return self._call(read)

    def get_many(self, keys: Sequence[str]) -> list[tuple[bytes, str] | None]:
        """Read values and their versions, in one round trip to each server; what isn't a string counts as absent."""
        places = [self._key(key) for key in keys]

        def read(client: Any) -> list[bytes | None]:
            # In a cluster, each key has a slot of its own.
            found: list[bytes | None] = getattr(client, "mget_nonatomic", client.mget)(places)
            return found

        values = self._call(read)
        return [None if each is None else (each[_VERSION:], each[:_VERSION].decode("latin-1")) for each in values]

    def put(self, key: str, value: bytes, *, ttl: float, expected: Expected = ANY) -> str | None:
        """Write a value."""
        version, milliseconds = secrets.token_hex(_VERSION // 2), _milliseconds(ttl)
        at, stored = self._key(key), version.encode() + value

        def write(client: Any) -> bool:
            if expected is not ANY and expected is not None:
                return bool(_REPLACE(client, [at], expected.encode("latin-1"), stored, milliseconds))
            if client.set(at, stored, px=milliseconds, nx=expected is None):
                return True
            # What is in the way may be this very value: an answer was lost, and the client has tried again by itself.
            with contextlib.suppress(Exception):
                return bool(client.getrange(at, 0, _VERSION - 1) == version.encode())
            return False

        return version if self._call(write) else None

    def delete(self, key: str, *, expected: Expected = ANY) -> bool:
        """Remove a value."""

        at = self._key(key)

        def remove(client: Any) -> bool:
            if expected is ANY:
                return bool(client.delete(at))
            return expected is not None and bool(_DELETE(client, [at], expected.encode("latin-1")))

        def removed(client: Any) -> bool:
            return remove(client) or (expected is not None and not client.exists(at))

        return self._call(remove, again=removed)

    def keys(self, prefix: str) -> Iterator[str]:
        """List keys."""
        pattern = f"{self._prefix}{{{prefix}*"
        skip = len(self._prefix) + 1
        nodes: list[Any] = self._call(
            lambda client: (
                [node.redis_connection for node in client.get_primaries()]
                if hasattr(client, "get_primaries")
                else [client]
            )
        )
        for node in nodes:
            cursor: Any = 0
            while True:
                cursor, found = self._call(functools.partial(_page, node, cursor, pattern))
                yield from (key[skip:-1].decode("ascii", "replace") for key in found if key.endswith(b"}"))
                if not int(cursor):
                    break

    def lock(self, name: str, holder: str, seconds: float) -> int | None:
        """Give a lock."""
        at = self._key(name)
        given = self._call(lambda client: _LOCK(client, [f"{at}:lease", f"{at}:fence"], holder, _milliseconds(seconds)))
        return None if given is None else int(given)

    def relock(self, name: str, holder: str, seconds: float) -> bool:
        """Have a lock last longer."""
        lease = f"{self._key(name)}:lease"
        return bool(self._call(lambda client: _RELOCK(client, [lease], holder, _milliseconds(seconds))))

    def unlock(self, name: str, holder: str) -> None:
        """End a lock."""
        lease = f"{self._key(name)}:lease"
        self._call(lambda client: _UNLOCK(client, [lease], holder))

    def close(self) -> None:
        """Close the connections, unless the client came from outside."""
        forks.notice()
        client, self._client = self._client, None
        if client is not None and self._owned:
            client.close()

    def _key(self, key: str) -> str:
        # In braces, so that all that belongs to one name lives in one slot of a cluster.
        return f"{self._prefix}{{{key}}}"

    def after_fork(self) -> None:
        """Begin without connections and threads, also in a forked child."""
        self._client = None
        self._connecting = threading.Lock()
        self._workers = Workers(per_lane=CALLS_AT_ONCE, queue=1024, now=_CLOCK.monotonic, wall=_CLOCK.wall)

    def _call(self, work: Callable[[Any], _T], *, again: Callable[[Any], _T] | None = None) -> _T:
        """Make a call on a worker thread: no client's timeout covers name resolution, or a cluster's redirections.

        Args:
            work: Makes it.
            again: Makes it once more where the first answer may have been lost on its way; `work` when not given.
        """
        forks.notice()

        ends = _CLOCK.monotonic() + self._timeout
        call: Future[_T] = Future()

        def attempt() -> _T:
            client = self._connected()
            try:
                return work(client)
            except Exception as error:
                if _CLOCK.monotonic() >= ends or not (is_read_only(error) or connection_was_lost(error)):
                    raise
            # Its siblings have lain there as long, or lead to the same server that isn't the primary any more.
            drop_idle(client)
            return (again or work)(client)

        def run() -> None:
            # What nobody waits for any more must not be written late, over what came after it.
            if not call.set_running_or_notify_cancel():
                return
            try:
                call.set_result(attempt())
            except BackendFailed as error:
                call.set_exception(error)
            except Exception as error:  # noqa: BLE001 - redis-py's, valkey-py's, ssl's, a credential provider's
                call.set_exception(failure(error))

        try:
            # One that doesn't come back, such as in name resolution, keeps nobody's place.
            self._workers.submit(self.label, run, ends=ends)
        except Overloaded:
            raise BackendFailed("busy", "too many calls wait") from None
        try:
            return call.result(self._timeout)
        except TimeoutError:
            call.cancel()
            raise BackendFailed("timeout", f"no answer within {self._timeout:g} s") from None

    def _connected(self) -> Any:
        if self._client is None:
            with self._connecting:
                if self._client is None:
                    self._client = self._connect()
        return self._client


class RedisStore(SealedStore):
    """Keep tokens in Redis or Valkey, sealed, and share them in a fleet (G3). Needs the extra `redis`.

    Args:
        url_or_client: `redis://`, `rediss://` (TLS), `redis+cluster://`, `rediss+cluster://` or `unix://`, as redis-py
            reads them; or a blocking client of redis-py's or valkey-py's, cluster clients included, which stays yours
            to close. It isn't asked before the first call.
        key: As for `SealedStore`; the same for the whole fleet.
        prefix: What all keys start with.
        timeout: Seconds that a call may take, resolving and connecting included.
        owner: Whose records these are, where several applications share the server and the key.
        purpose: What they are for; works as `owner` does.
        clock: Where the time comes from; for tests.
        jitter: Where randomness of breaks comes from; for tests.

    Raises:
        ConfigurationError: An argument is wrong, or redis-py isn't installed.
        StoreUnavailable: A function that should have given a key failed.
    """

    def __init__(
        self,
        url_or_client: str | Any,
        key: KeySource,
        *,
        prefix: str = "resilient-auth",
        timeout: float = 0.5,
        owner: str | None = None,
        purpose: str = "tokens",
        clock: Clock | None = None,
        jitter: Jitter = system_jitter,
    ) -> None:
        require_number("timeout", timeout, low=0.01, high=60.0)
        fits = isinstance(prefix, str) and _PREFIX.fullmatch(prefix) is not None
        require(fits, f"prefix must be up to 64 of A-Z, a-z, 0-9, '_', '.', ':' and '-', not {prefix!r}")
        require(
            key is not None, "RedisStore needs a key: the server keeps no secrets, give key=EnvironmentKey(name), say"
        )
        owned = isinstance(url_or_client, str)
        connect = connector(url_or_client, timeout) if isinstance(url_or_client, str) else given(url_or_client)
        super().__init__(
            RedisBackend(connect, owned=owned, prefix=prefix, timeout=timeout),
            key=key,
            owner=owner,
            purpose=purpose,
            clock=clock,
            jitter=jitter,
        )


def _page(node: Any, cursor: Any, pattern: str, _: Any) -> Any:
    return node.scan(cursor, match=pattern, count=_PAGE)


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
