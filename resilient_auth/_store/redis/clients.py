"""Clients of Redis or Valkey: ours, made from a URL, whose idle connections are doubted, and those that owners give."""

from __future__ import annotations

import contextlib
import inspect
import math
import queue
import socket
import time
from collections.abc import Callable
from typing import Any

from ..._policy.checks import require
from ..._process.extras import install
from ...errors import ConfigurationError

__all__ = ["CALLS_AT_ONCE", "connector", "drop_idle", "given"]

CALLS_AT_ONCE = 16
#: Seconds after which a connection that lay idle is asked whether it still leads anywhere: firewalls, load balancers
#: and failovers drop idle ones without a word.
_DOUBTED_AFTER = 1.0
#: The share of a call's time that its answer may take.
_DOUBT = 0.25
#: Seconds after which the system asks by itself, between two of its questions, and how many it asks.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


def connector(url: str, timeout: float) -> Callable[[], Any]:
    """Return a function that makes a client for a URL; a wrong one is refused here.

    Raises:
        ConfigurationError: It can't be read, or redis-py isn't installed.
    """
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise ConfigurationError(install("RedisStore", error.name, "redis")) from error
    scheme, separator, rest = url.partition("://")
    schemes = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
    # Never quoted whole: a URL may hold a password.
    require(bool(separator) and scheme in schemes, f"the URL must start with one of {', '.join(schemes)}, and ://")
    bounds: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    if scheme != "unix":
        numbers = {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}
        bounds |= {"socket_keepalive": True, "socket_keepalive_options": numbers}
    blocking_pool = _doubting(redis.BlockingConnectionPool, timeout * _DOUBT)
    cluster_pool = _doubting(redis.ConnectionPool, timeout * _DOUBT)
    never = Retry(NoBackoff(), 0)
    plain = f"{scheme.removesuffix('+cluster')}://{rest}"
    try:
        redis.ConnectionPool.from_url(plain)  # connects to nothing yet
    except (ValueError, TypeError):
        raise ConfigurationError("the URL can't be read: see redis-py's from_url for what it may hold") from None

    def connect() -> Any:
        if scheme.endswith("+cluster"):
            return redis.RedisCluster.from_url(
                plain, retry=never, protocol=2, connection_pool_class=cluster_pool, **bounds
            )
        pool = blocking_pool.from_url(
            plain, timeout=timeout, max_connections=CALLS_AT_ONCE, retry=never, protocol=2, **bounds
        )
        # A URL's own parameters win over what it is given with; a wish for more patience than the store's is no wish.
        pool.connection_kwargs.update(bounds)
        pool.connection_kwargs.pop("decode_responses", None)
        return redis.Redis(connection_pool=pool)

    return connect


def _doubting(pool: Any, patience: float) -> Any:
    """Return a pool class that doesn't hand out a connection that lay idle and answers no more: it makes a new one."""

    class DoubtingPool(pool):  # type: ignore[misc]
        def get_connection(self, *arguments: Any, **options: Any) -> Any:
            connection = super().get_connection(*arguments, **options)
            try:
                if time.monotonic() - getattr(connection, "rests_since", math.inf) > _DOUBTED_AFTER:
                    _freshen(connection, patience)
            except BaseException:
                self.release(connection)
                raise
            return connection

        def release(self, connection: Any) -> None:
            connection.rests_since = time.monotonic()
            super().release(connection)

    return DoubtingPool


def _freshen(connection: Any, patience: float) -> None:
    with contextlib.suppress(Exception):
        connection.send_command("PING", check_health=False)
        if connection.can_read(timeout=patience) and connection.read_response() == b"PONG":
            return
    connection.disconnect()
    connection.connect()


def _pools(client: Any) -> list[Any]:
    """Return a client's pools of connections: a cluster's has one for each node."""
    if hasattr(client, "get_nodes"):
        nodes = [node.redis_connection for node in client.get_nodes()]
        return [node.connection_pool for node in nodes if node is not None]
    pool = getattr(client, "connection_pool", None)
    return [] if pool is None else [pool]


def drop_idle(client: Any) -> None:
    """Close the connections that wait to be used again, so that the next call is made on a new one."""
    own = getattr(client, "connection", None)  # a client of one connection
    if own is not None:
        own.disconnect()
    for pool in _pools(client):
        waiting = getattr(pool, "pool", None)
        if waiting is None:
            pool.disconnect(inuse_connections=False)
            continue
        # A blocking pool of redis-py 6 and valkey-py would close those that other threads use, too.
        taken: list[Any] = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(waiting.get_nowait())
        for connection in reversed(taken):
            if connection is not None:
                connection.disconnect()
            waiting.put_nowait(connection)


def _check_bounds(client: Any) -> None:
    """Refuse a client whose connections wait for ever: each would keep one of the store's threads."""
    for pool in _pools(client):
        kinds = getattr(pool, "connection_class", object).__mro__
        defaults = [inspect.signature(kind).parameters.get("socket_timeout") for kind in kinds if kind is not object]
        default = next((each.default for each in defaults if each is not None), None)
        require(
            getattr(pool, "connection_kwargs", {}).get("socket_timeout", default) is not None,
            "the client has no socket_timeout, so a server that hangs would block its threads for ever: make it "
            "with socket_timeout=0.2, say (less than half of the store's timeout leaves time for a second try), and "
            "with socket_keepalive=True; or give a URL",
        )
        for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
            _check_bounds(sentinel)


def _check_reads(client: Any) -> None:
    """Refuse a client that reads from replicas: what they say is older than what writes are compared with."""
    fix = "reads and writes must go to the same server"
    require(
        not getattr(client, "read_from_replicas", False) and getattr(client, "load_balancing_strategy", None) is None,
        f"the cluster client reads from replicas: give one without read_from_replicas, since {fix}",
    )
    require(
        all(getattr(pool, "is_master", True) for pool in _pools(client)),
        f"the client is for a Sentinel's replicas: give sentinel.master_for(name), since {fix}",
    )


def given(client: Any) -> Callable[[], Any]:
    """Return a function that gives the owner's client; one that can't work is refused here.

    Raises:
        ConfigurationError: It waits for ever, reads from replicas, decodes what it reads, or isn't a client.
    """
    require(
        not hasattr(client, "master_for"),
        "a Sentinel isn't a client: give what its master_for(name, socket_timeout=0.2) returns",
    )
    for name in ("get", "mget", "set", "delete", "evalsha", "eval", "scan"):
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
    _check_bounds(client)
    _check_reads(client)
    return lambda: client
