"""Databases are given the credential's token of the moment in place of a password, by their released drivers."""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Iterator
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from azure.core.credentials import AccessToken
from login_server import Server
from sqlalchemy.ext.asyncio import create_async_engine

import resilient_auth as ra
from resilient_auth.integrations import postgres
from resilient_auth.integrations.sqlalchemy import SQL_COPT_SS_ACCESS_TOKEN, authenticate, token_struct


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def issued() -> list[tuple[str, ...]]:
    return []


@pytest.fixture
def source(issued: list[tuple[str, ...]]) -> Any:
    def give(scopes: tuple[str, ...]) -> AccessToken:
        issued.append(scopes)
        return AccessToken(f"T{len(issued)}", int(time.time()) + 3600)

    return give


@pytest.mark.parametrize("face", ["coroutine", "blocking"])
def test_asyncpg_asks_for_each_connection_in_any_loop(server: Server, source: Any, issued: Any, face: str) -> None:
    credential = (ra.aio.ResilientCredential if face == "coroutine" else ra.ResilientCredential)(source)
    password = postgres.password(credential)

    async def run() -> None:
        for _ in range(2):
            connection = await asyncpg.connect(
                host="127.0.0.1", port=server.port, user="orders-app", database="d", password=password
            )
            connection.terminate()
        done = credential.invalidate("T1")
        if done is not None:
            await done

    asyncio.run(run())
    asyncio.run(run())
    assert server.logins == [("orders-app", f"T{number}") for number in (1, 1, 2, 2)]
    assert issued[0] == ("https://ossrdbms-aad.database.windows.net/.default",)


def test_psycopg_asks_for_each_connection(server: Server, source: Any) -> None:
    credential = ra.ResilientCredential(source)
    kind = postgres.connection_class(credential, base=psycopg.Connection)
    with kind.connect(f"host=127.0.0.1 port={server.port} user=orders-app") as connection:
        assert isinstance(connection, kind)
    credential.invalidate("T1")
    kind.connect(f"host=127.0.0.1 port={server.port}", user="other-app", password="ignored").close()
    assert server.logins == [("orders-app", "T1"), ("other-app", "T2")]


async def test_psycopgs_awaited_connections_do_so_too(server: Server, source: Any) -> None:
    kind = postgres.async_connection_class(ra.aio.ResilientCredential(source), "api://db/.default")
    connection = await kind.connect(f"host=127.0.0.1 port={server.port} user=orders-app")
    await connection.close()
    assert server.logins == [("orders-app", "T1")]


def test_a_token_goes_to_no_server_that_wants_no_tls(source: Any, issued: Any, monkeypatch: Any) -> None:
    """Libpq's default would send it unencrypted to whoever answers that it has none."""
    kind = postgres.connection_class(ra.ResilientCredential(source))
    for conninfo, options in (
        ("host=db.example sslmode=prefer", {}),
        ("host=127.0.0.1,db.example", {"sslmode": "disable"}),
        ("", {"host": "db.example", "sslmode": "allow"}),
    ):
        with pytest.raises(ra.ConfigurationError, match=r"sslmode=.*require, or verify-full"):
            kind.connect(conninfo, **options)
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("PGHOST", "db.example")
    with pytest.raises(ra.ConfigurationError, match="sslmode=disable"):
        kind.connect("")
    assert not issued


def test_the_address_that_is_connected_to_decides_and_not_the_name(source: Any, issued: Any, monkeypatch: Any) -> None:
    """Libpq connects to hostaddr, which the environment may hold too, whatever the name of the host is."""
    kind = postgres.connection_class(ra.ResilientCredential(source))
    elsewhere = "255.255.255.255"  # to which no system lets anybody connect
    with pytest.raises(ra.ConfigurationError, match=rf"sslmode=prefer.*{elsewhere}"):
        kind.connect(f"host=localhost hostaddr={elsewhere} sslmode=prefer")
    monkeypatch.setenv("PGHOSTADDR", elsewhere)
    for conninfo in ("sslmode=allow", "host=localhost sslmode=disable"):
        with pytest.raises(ra.ConfigurationError, match=elsewhere):
            kind.connect(conninfo)
    assert not issued


def test_a_service_whose_file_says_where_to_is_taken_with_an_sslmode_alone(
    source: Any, issued: Any, monkeypatch: Any
) -> None:
    """What the file says of TLS is libpq's to read: it would be overruled by a default of ours."""
    kind = postgres.connection_class(ra.ResilientCredential(source))
    with pytest.raises(ra.ConfigurationError, match=r"service.*say sslmode=require, or verify-full"):
        kind.connect("service=shop")
    monkeypatch.setenv("PGSERVICE", "shop")
    with pytest.raises(ra.ConfigurationError, match=r"service.*say sslmode=require, or verify-full"):
        kind.connect("host=localhost")
    with pytest.raises(ra.ConfigurationError, match="sslmode=prefer"):
        kind.connect("host=localhost", sslmode="prefer")
    assert not issued


def odbc(paramstyle: str = "qmark") -> tuple[Any, list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """Return what SQLAlchemy takes for pyodbc, and how it was called."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    class Refused(Exception):
        pass

    def connect(*args: Any, **options: Any) -> Any:
        calls.append((args, options))
        raise Refused("08001", "nobody there")

    module = types.SimpleNamespace(
        connect=connect, Error=Refused, paramstyle=paramstyle, version="5.2.0", pooling=True, NUMERIC=1,
        SQL_DECIMAL=3, Cursor=object, __name__="pyodbc",
    )  # fmt: skip
    return module, calls


@pytest.mark.parametrize(
    "url",
    [
        "mssql+pyodbc://@shop.database.windows.net/orders?driver=ODBC+Driver+18+for+SQL+Server",
        "mssql+pyodbc://sa:p%3Bw%7D@shop.database.windows.net/orders?driver=ODBC+Driver+18+for+SQL+Server",
        "mssql+pyodbc://@shop.database.windows.net/orders?driver=ODBC+Driver+18+for+SQL+Server"
        "&Authentication=ActiveDirectoryMsi",
    ],
)
def test_azure_sql_is_given_the_drivers_struct(source: Any, issued: Any, url: str) -> None:
    """And nothing of a user: the driver refuses one beside a token."""
    module, calls = odbc()
    credential = ra.ResilientCredential(source)
    engine = sqlalchemy.create_engine(url, module=module, connect_args={"attrs_before": {103: 5}, "timeout": 3})
    authenticate(engine, credential)
    for _ in range(2):
        with pytest.raises(sqlalchemy.exc.DBAPIError):
            engine.connect()
        credential.invalidate("T1")
    (text,), options = calls[0]
    assert options["timeout"] == 3
    assert options["attrs_before"][103] == 5
    assert "SERVER" in text.upper()
    assert all(word not in text.upper() for word in ("UID", "PWD", "TRUSTED_CONNECTION", "AUTHENTICATION"))
    tokens = [options["attrs_before"][SQL_COPT_SS_ACCESS_TOKEN] for _, options in calls]
    assert tokens == [token_struct("T1"), token_struct("T2")]
    assert issued[0] == ("https://database.windows.net/.default",)


def test_the_struct_is_the_length_and_the_text_in_utf_16() -> None:
    assert token_struct("aé") == b"\x04\x00\x00\x00a\x00\xe9\x00"


def test_engines_of_postgresql_log_in_with_it(server: Server, source: Any) -> None:
    """Two engines with credentials of their own, one of them asyncio's."""
    first, second = ra.ResilientCredential(source), ra.aio.ResilientCredential(source)
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://orders-app@127.0.0.1:{server.port}/d")
    authenticate(engine, first)
    with pytest.raises(sqlalchemy.exc.OperationalError):  # the server answers no query
        engine.connect()
    awaited = create_async_engine(f"postgresql+asyncpg://other-app:x@127.0.0.1:{server.port}/d")
    authenticate(awaited, second)

    async def run() -> None:
        with pytest.raises((sqlalchemy.exc.DBAPIError, ConnectionError, asyncpg.PostgresError)):
            await awaited.connect()
        await awaited.dispose()

    asyncio.run(run())
    assert server.logins == [("orders-app", "T1"), ("other-app", "T2")]


def test_bad_input_is_named(source: Any) -> None:
    credential = ra.ResilientCredential(source)
    with pytest.raises(ra.ConfigurationError, match="engine must be SQLAlchemy's"):
        authenticate("mssql+pyodbc://", credential)
    with pytest.raises(ra.ConfigurationError, match=r"not of sqlite\+pysqlite"):
        authenticate(sqlalchemy.create_engine("sqlite://"), credential)
    engine = sqlalchemy.create_engine("postgresql+psycopg://a@localhost/d")
    with pytest.raises(ra.ConfigurationError, match="asyncio"):
        authenticate(engine, ra.aio.ResilientCredential(source))
    with pytest.raises(ra.ConfigurationError, match="base must be a subclass"):
        postgres.connection_class(credential, base=dict)
    for make in (postgres.password, postgres.connection_class, postgres.async_connection_class):
        with pytest.raises(ra.ConfigurationError, match="credential must have"):
            make("token")
