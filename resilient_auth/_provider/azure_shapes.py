"""azure-core's shapes: its own classes where it is installed, and the like of them where it isn't.

Its retry policy stops at `ClientAuthenticationError`, and azure-identity's chains go on at
`CredentialUnavailableError`, which is one of those. So a denial becomes the first, and an unavailable provider the
second: the retrying has been done here, within one deadline, and another credential in a chain may work.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ProviderUnavailable, ResilientAuthError, TokenDenied

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


__all__ = ["AccessToken", "AccessTokenInfo", "for_azure"]

#: The silent flow has nothing to offer: in a chain, another credential may.
SIGN_IN_AGAIN = "interaction_required"


def for_azure(error: ProviderUnavailable | TokenDenied) -> ResilientAuthError:
    """Make an error that is also the one that azure-core's pipeline and azure-identity's chains expect."""
    core = sys.modules.get("azure.core.exceptions")
    theirs = getattr(core, "ClientAuthenticationError", None)
    if theirs is None or isinstance(error, theirs):
        return error
    if isinstance(error, ProviderUnavailable) or error.error == SIGN_IN_AGAIN:
        # A chain that could catch it has imported it.
        theirs = getattr(sys.modules.get("azure.identity"), "CredentialUnavailableError", theirs)
    kind: Any = type(error)
    both = _both(kind, theirs)
    made: Any = both.__new__(both, error.message)
    made.args = error.args
    made.__dict__.update(error.__dict__)
    made.__cause__ = error.__cause__
    made.__suppress_context__ = True
    told: ResilientAuthError = made
    return told


@functools.cache
def _both(ours: type[Any], theirs: type[Any]) -> type[Any]:
    def reduce(error: Any) -> Any:
        # azure-core need not be there where it is unpickled.
        if isinstance(error, ProviderUnavailable):
            return _rebuild, (ours, (error.message,), {"authority": error.authority, "retry_after": error.retry_after})
        return _rebuild, (ours, (error.error, error.description), {"claims": error.claims})

    # What azure-core's constructors would have set.
    attributes = {
        "reason": None,
        "status_code": None,
        "response": None,
        "model": None,
        "error": None,
        "inner_exception": None,
        "exc_type": None,
        "exc_value": None,
        "exc_traceback": None,
        "exc_msg": "",
        "continuation_token": None,
        "__reduce__": reduce,
        "__str__": lambda error: error.message,
        "__module__": ours.__module__,
        "__qualname__": ours.__qualname__,
        "__doc__": ours.__doc__,
    }
    return type(ours.__name__, (ours, theirs), attributes)


def _rebuild(kind: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return kind(*args, **options)
