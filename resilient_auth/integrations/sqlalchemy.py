"""Tokens as passwords of the databases behind SQLAlchemy: Azure SQL by ODBC, and PostgreSQL.

    engine = create_engine("mssql+pyodbc://@shop.database.windows.net/orders?driver=ODBC+Driver+18+for+SQL+Server")
    authenticate(engine, resilient_auth.ResilientCredential(app))

Each new connection is opened with the credential's token of that moment; one that is open outlives it. Needs the
extra: `pip install 'resilient-auth[sqlalchemy]'`.
"""

from __future__ import annotations

import re
import struct
from typing import Any

from .. import aio
from .._policy.checks import require
from .._process.extras import raise_missing
from ..credential import get_bearer_token_provider

try:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
    from sqlalchemy.util import await_only
except ImportError as error:
    raise_missing(__name__, "sqlalchemy", error)

__all__ = ["SQL_COPT_SS_ACCESS_TOKEN", "authenticate", "token_struct"]

#: The attribute of a connection by which Microsoft's ODBC driver is given a token (msodbcsql.h).
SQL_COPT_SS_ACCESS_TOKEN = 1256
_SCOPES = {
    "mssql": "https://database.windows.net/.default",
    "postgresql": "https://ossrdbms-aad.database.windows.net/.default",
}
_ODBC = frozenset({"pyodbc", "aioodbc", "mssqlpython"})
#: What of a connection string the driver refuses beside a token. A value may be in braces, with `}}` for `}`.
_ELSEWISE = re.compile(
    r"(?i)(?:^|;)\s*(?:UID|PWD|User ID|Password|Trusted_Connection|Authentication)\s*=\s*(?:\{(?:[^}]|\}\})*+\}?|[^;]*)"
)


def token_struct(token: str) -> bytes:
    """Return a token as Microsoft's ODBC driver takes it, in `attrs_before={SQL_COPT_SS_ACCESS_TOKEN: ...}`."""
    text = token.encode("utf-16-le")
    return struct.pack(f"<I{len(text)}s", len(text), text)


def authenticate(engine: Any, credential: Any, *scopes: str) -> None:
    """Have an engine open its connections with a credential's tokens.

    What the URL says of user and password is left out for Azure SQL; for PostgreSQL the user stays, and is the name of
    the identity.

    Args:
        engine: An `Engine` or an `AsyncEngine`, of `mssql` by ODBC or of `postgresql`.
        credential: Anything with `get_token` or `get_token_info`; one of asyncio's for an `AsyncEngine` alone.
        scopes: What the token is for; none for that of the database in the public cloud.

    Raises:
        ConfigurationError: An argument is wrong.
    """
    ours = getattr(engine, "sync_engine", engine)
    require(isinstance(ours, Engine), f"engine must be SQLAlchemy's Engine or AsyncEngine, not {type(engine).__name__}")
    dialect = ours.dialect
    by_odbc = dialect.name == "mssql" and dialect.driver in _ODBC
    require(
        by_odbc or dialect.name == "postgresql",
        f"engine must be one of mssql by pyodbc, aioodbc or mssql-python, or of postgresql, not of "
        f"{dialect.name}+{dialect.driver}",
    )
    wanted = scopes or (_SCOPES[dialect.name],)
    if dialect.is_async:
        awaited = aio.get_bearer_token_provider(credential, *wanted)

        def token() -> str:
            given: str = await_only(awaited())
            return given
    else:
        token = get_bearer_token_provider(credential, *wanted)

    def do_connect(dialect: Any, record: Any, args: list[Any], options: dict[str, Any]) -> None:
        if not by_odbc:
            options["password"] = token()
            return
        if args and isinstance(args[0], str):
            args[0] = _ELSEWISE.sub("", args[0]).lstrip(";")
        for name in [name for name in options if name.lower() in _NAMES]:
            del options[name]
        before = dict(options.get("attrs_before") or {})
        options["attrs_before"] = before | {SQL_COPT_SS_ACCESS_TOKEN: token_struct(token())}

    event.listen(ours, "do_connect", do_connect)


_NAMES = frozenset({"uid", "pwd", "user", "password", "trusted_connection", "authentication"})
