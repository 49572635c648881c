"""A store in Redis or Valkey, for the processes of a fleet (extra `redis`).

Every comparison is one command or one Lua script on one key's slot, so that it holds in a cluster too. Lives of values
and leases are measured by the server: clocks of the fleet may disagree.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .. import _forks
from .._flow.workers import Workers
from .._policy.checks import require, require_number
from ..clock import Clock, Jitter, system_jitter
from ..errors import ConfigurationError, Overloaded
from ..store import ANY, BackendFailed, Expected
from .keys import KeySource
from .sealed import SealedStore

__all__ = ["RedisBackend", "RedisStore"]

_T = TypeVar("_T")

#: Of how values and keys are laid out; another one lives under other keys.
_SCHEMA = 1
#: Hex digits before each value: its version.
_VERSION = 16
#: The version that is told of a key that holds something else than a string.
_OTHER_TYPE = "other-type"
_PAGE = 500
_CALLS_AT_ONCE = 16
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
#: What servers say first when they refuse.
_REFUSALS = {
    "OOM": "full",
    "READONLY": "read_only",
    "MISCONF": "read_only",
    "NOREPLICAS": "read_only",
    "NOAUTH": "denied",
    "WRONGPASS": "denied",
    "NOPERM": "denied",
    "LOADING": "loading",
    "MASTERDOWN": "loading",
    "CLUSTERDOWN": "cluster_down",
    "TRYAGAIN": "cluster_down",
}
_REFUSAL = re.compile(rf"\b({'|'.join(_REFUSALS)})\b")
#: By the names of exceptions, which redis-py and valkey-py share; the first that fits.
_KINDS = {
    "AuthenticationError": "denied",
    "AuthorizationError": "denied",
    "NoPermissionError": "denied",
    "OutOfMemoryError": "full",
    "ReadOnlyError": "read_only",
    "BusyLoadingError": "loading",
    "TimeoutError": "timeout",
    "MaxConnectionsError": "busy",
    "ClusterDownError": "cluster_down",
    "RedisClusterException": "cluster_down",
    "ValkeyClusterException": "cluster_down",
    "ConnectionError": "connection_failed",
}


class _Script:
    """A Lua script that the server is sent once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Any, keys: list[str], *arguments: object) -> Any:
        try:
            return client.evalsha(self._digest, len(keys), *keys, *arguments)
        except Exception as error:
            if not _is_a(error, "NoScriptError"):
                raise
            return client.eval(self._text, len(keys), *keys, *arguments)


_REPLACE = _Script("""
local there = redis.pcall('GETRANGE', KEYS[1], 0, 15)
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
# A lock without an end isn't one of ours. The clock in the fence keeps it growing when the server forgot the last one.
_LOCK = _Script("""
if redis.call('PTTL', KEYS[1]) == -1 then redis.call('DEL', KEYS[1]) end
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
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
        _forks.renew_in_children(self)

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

    def put(self, key: str, value: bytes, *, ttl: float, expected: Expected = ANY) -> str | None:
        """Write a value."""
        version, milliseconds = secrets.token_hex(_VERSION // 2), _milliseconds(ttl)
        stored = version.encode() + value

        def write(client: Any) -> bool:
            at = self._key(key)
            if expected is ANY or expected is None:
                return bool(client.set(at, stored, px=milliseconds, nx=expected is None))
            return bool(_REPLACE(client, [at], expected.encode("latin-1"), stored, milliseconds))

        return version if self._call(write) else None

    def delete(self, key: str, *, expected: Expected = ANY) -> bool:
        """Remove a value."""

        def remove(client: Any) -> bool:
            at = self._key(key)
            if expected is ANY:
                return bool(client.delete(at))
            return expected is not None and bool(_DELETE(client, [at], expected.encode("latin-1")))

        return self._call(remove)

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
        _forks.notice()
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
        self._workers = Workers(per_lane=_CALLS_AT_ONCE, queue=1024)

    def _call(self, work: Callable[[Any], _T]) -> _T:
        """Make a call on a worker thread: no client's timeout covers name resolution, or a cluster's redirections."""
        _forks.notice()
        call = _Call(lambda: work(self._connected()))
        try:
            self._workers.submit(self.label, call.run)
        except Overloaded:
            raise BackendFailed("busy", "too many calls wait") from None
        answer: _T = call.answer(self._timeout)
        return answer

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
        connect = _connector(url_or_client, timeout) if isinstance(url_or_client, str) else _given(url_or_client)
        super().__init__(
            RedisBackend(connect, owned=owned, prefix=prefix, timeout=timeout),
            key=key,
            owner=owner,
            purpose=purpose,
            clock=clock,
            jitter=jitter,
        )


class _Call:
    """One call, its answer, and whether anybody still waits for it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work: Callable[[], Any] | None = work
        self._done = threading.Lock()
        self._done.acquire()
        self._answer: Any = None
        self._error: BackendFailed | None = None

    def run(self) -> None:
        work = self._work
        # What nobody waits for any more must not be written late, over what came after it.
        if work is None:
            return
        try:
            self._answer = work()
        except BackendFailed as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - redis-py's, valkey-py's, ssl's, a credential provider's
            self._error = _failure(error)
        finally:
            self._done.release()

    def answer(self, seconds: float) -> Any:
        if not self._done.acquire(timeout=seconds):
            self._work = None
            raise BackendFailed("timeout", f"no answer within {seconds:g} s")
        if self._error is not None:
            raise self._error
        return self._answer


def _connector(url: str, timeout: float) -> Callable[[], Any]:
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise ConfigurationError("RedisStore needs redis-py: pip install 'resilient-auth[redis]'") from None
    scheme, separator, rest = url.partition("://")
    schemes = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
    # Never quoted whole: a URL may hold a password.
    require(bool(separator) and scheme in schemes, f"the URL must start with one of {', '.join(schemes)}, and ://")
    bounds: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    never = Retry(NoBackoff(), 0)
    plain = f"{scheme.removesuffix('+cluster')}://{rest}"
    try:
        redis.ConnectionPool.from_url(plain)  # connects to nothing yet
    except (ValueError, TypeError):
        raise ConfigurationError("the URL can't be read: see redis-py's from_url for what it may hold") from None

    def connect() -> Any:
        if scheme.endswith("+cluster"):
            return redis.RedisCluster.from_url(plain, retry=never, protocol=2, **bounds)
        pool = redis.BlockingConnectionPool.from_url(
            plain, timeout=timeout, max_connections=_CALLS_AT_ONCE, retry=never, protocol=2, **bounds
        )
        # A URL's own parameters win over what it is given with; a wish for more patience than the store's is no wish.
        pool.connection_kwargs.update(bounds)
        pool.connection_kwargs.pop("decode_responses", None)
        return redis.Redis(connection_pool=pool)

    return connect


def _given(client: Any) -> Callable[[], Any]:
    for name in ("get", "set", "delete", "evalsha", "eval", "scan"):
        method = getattr(client, name, None)
        require(
            callable(method) and not inspect.iscoroutinefunction(getattr(client, "execute_command", None)),
            f"give a URL, or a blocking client of redis-py's or valkey-py's, not {type(client).__module__}."
            f"{type(client).__qualname__}",
        )
    encoder = client.get_encoder() if hasattr(client, "get_encoder") else None
    require(
        not getattr(encoder, "decode_responses", False),
        "the client has decode_responses=True, and sealed values aren't text: give one without, or a URL",
    )
    return lambda: client


def _page(node: Any, cursor: Any, pattern: str, _: Any) -> Any:
    return node.scan(cursor, match=pattern, count=_PAGE)


def _failure(error: Exception) -> BackendFailed:
    """Tell what is wrong, in words of ours: an error's text may quote hosts, users and commands."""
    kind = type(error).__name__
    said = _REFUSAL.search(str(error))
    if said is not None and not isinstance(error, OSError):
        return BackendFailed(_REFUSALS[said[1]], f"{kind}, {said[1]}")
    for name, code in _KINDS.items():
        if _is_a(error, name):
            return BackendFailed(code, kind)
    return BackendFailed("connection_failed" if isinstance(error, OSError) else "failed", kind)


def _is_a(error: Exception, name: str) -> bool:
    return any(base.__name__ == name for base in type(error).__mro__)


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
