"""Tokens as passwords of Azure Database for PostgreSQL, for asyncpg and psycopg.

    asyncpg.create_pool(host=..., user="orders-app", ssl="verify-full", password=password(credential))
    psycopg_pool.ConnectionPool("host=... user=orders-app", connection_class=connection_class(credential))

Each new connection is opened with the credential's token of that moment; one that is open outlives it. The
classes for psycopg need the extra: `pip install 'resilient-auth[psycopg]'`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any

from .. import aio
from .._policy.checks import require
from .._process.extras import raise_missing
from ..credential import get_bearer_token_provider
from ..downstream.origins import is_loopback

__all__ = ["async_connection_class", "connection_class", "password"]

_SCOPE = "https://ossrdbms-aad.database.windows.net/.default"
#: With these libpq sends a password unencrypted, or to a server that wants no encryption.
_UNSAFE = frozenset({"disable", "allow", "prefer"})


def password(credential: Any, *scopes: str) -> Callable[[], Coroutine[Any, Any, str]]:
    """Return what asyncpg takes as `password`, and asks for each connection. Give it `ssl="verify-full"` too.

    Args:
        credential: Anything with `get_token` or `get_token_info`; one that blocks is asked on a thread.
        scopes: What the token is for; none for that of the database in the public cloud.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    return aio.get_bearer_token_provider(credential, *(scopes or (_SCOPE,)))


def connection_class(credential: Any, *scopes: str, base: Any = None) -> Any:
    """Return a class of psycopg connections that are opened with a credential's tokens, over TLS.

    Args:
        credential: Anything with `get_token` or `get_token_info`; none of asyncio's.
        scopes: What the token is for; none for that of the database in the public cloud.
        base: The class that it is to be made of; None for `psycopg.Connection`.

    Raises:
        ConfigurationError: An argument is wrong; or, at a connection, its `sslmode` would let the token be read.
    """
    connection = _psycopg().Connection
    token = get_bearer_token_provider(credential, *(scopes or (_SCOPE,)))
    kind = _base(base, connection)

    class TokenConnection(kind):  # type: ignore[misc, valid-type]
        @classmethod
        def connect(cls, conninfo: str = "", **options: Any) -> Any:
            options |= _tls(conninfo, options)
            return super().connect(conninfo, **options | {"password": token()})

    return TokenConnection


def async_connection_class(credential: Any, *scopes: str, base: Any = None) -> Any:
    """Return the same for `psycopg.AsyncConnection`, for a credential of either kind."""
    connection = _psycopg().AsyncConnection
    token = aio.get_bearer_token_provider(credential, *(scopes or (_SCOPE,)))
    kind = _base(base, connection)

    class AsyncTokenConnection(kind):  # type: ignore[misc, valid-type]
        @classmethod
        async def connect(cls, conninfo: str = "", **options: Any) -> Any:
            options |= _tls(conninfo, options)
            return await super().connect(conninfo, **options | {"password": await token()})

    return AsyncTokenConnection


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise_missing(f"{__name__}'s connection classes", "psycopg", error)
    return psycopg


def _base(given: Any, usual: type[Any]) -> type[Any]:
    require(
        given is None or (isinstance(given, type) and issubclass(given, usual)),
        f"base must be a subclass of psycopg.{usual.__name__}, not {given!r}",
    )
    return usual if given is None else given


def _tls(conninfo: str, options: dict[str, Any]) -> dict[str, str]:
    """Return what is to be said of TLS, so that nobody on the way can read a password: libpq's default lets them."""
    from psycopg.conninfo import conninfo_to_dict

    names = ("host", "hostaddr", "sslmode", "service")
    known = conninfo_to_dict(conninfo, **{name: options[name] for name in names if name in options})
    # Where both are known, libpq connects to the address, and verifies the name.
    hosts = _known(known, "hostaddr") or _known(known, "host")
    if service := _known(known, "service"):
        hosts = f"the host of the service {service}"
        require(
            bool(known.get("sslmode")),
            f"what the service {service} says of TLS isn't read here: say sslmode=require, or verify-full",
        )
    elif all(not host or host.startswith(("/", "@")) or is_loopback(host) for host in hosts.split(",")):
        return {}
    mode = _known(known, "sslmode") or "require"
    require(
        mode not in _UNSAFE,
        f"sslmode={mode} would let the token be read on the way to {hosts}: use require, or verify-full",
    )
    return {"sslmode": mode}


def _known(given: dict[str, Any], name: str) -> str:
    """Return what is said of a connection, in its text or by libpq's variable, such as `PGHOST`; "" for nothing."""
    return str(given.get(name) or os.environ.get(f"PG{name.upper()}") or "")
