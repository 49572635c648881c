"""azure-core's shapes: its own classes where it is installed, and the like of them where it isn't."""

from __future__ import annotations

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

        class AccessTokenInfo:
            """An access token, its end of validity and the time of its refresh, in seconds since the epoch."""

            def __init__(
                self,
                token: str,
                expires_on: int,
                *,
                token_type: str = "Bearer",  # noqa: S107
                refresh_on: int | None = None,
            ) -> None:
                self.token = token
                self.expires_on = expires_on
                self.token_type = token_type
                self.refresh_on = refresh_on

            def __repr__(self) -> str:
                return f"AccessTokenInfo(expires_on={self.expires_on}, refresh_on={self.refresh_on})"


__all__ = ["AccessToken", "AccessTokenInfo"]
