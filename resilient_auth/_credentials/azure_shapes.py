"""azure-core's shapes: its own classes where it is installed, and the like of them where it isn't."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, AccessTokenInfo
else:
    try:
        from azure.core.credentials import AccessToken, AccessTokenInfo
    except ImportError:

        class AccessToken(NamedTuple):
            """An access token and its end of validity in seconds since the epoch."""

            token: str
            expires_on: int

            def __repr__(self) -> str:
                return f"AccessToken(expires_on={self.expires_on})"

        @dataclass(eq=False)
        class AccessTokenInfo:
            """An access token, its end of validity and the time of its refresh, in seconds since the epoch."""

            token: str = field(repr=False)
            expires_on: int
            token_type: str = field(default="Bearer", kw_only=True, repr=False)
            refresh_on: int | None = field(default=None, kw_only=True)


__all__ = ["AccessToken", "AccessTokenInfo"]
