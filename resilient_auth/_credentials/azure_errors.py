"""azure-core's errors, where it is imported.

Its retry policy stops at `ClientAuthenticationError`, and azure-identity's chains go on at
`CredentialUnavailableError`, which is one of those. So a denial becomes the first, and an unavailable provider the
second: the retrying has been done here, within one deadline, and another credential in a chain may work. An API's
challenge for a tenant that may not be asked for ends in the first one too, as with azure-identity's credentials.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError, ProviderUnavailable, ResilientAuthError, TokenDenied

__all__ = ["denial", "for_azure"]

#: The silent flow has nothing to offer: in a chain, another credential may.
_SIGN_IN_AGAIN = "interaction_required"


def for_azure(error: ProviderUnavailable | TokenDenied | ConfigurationError) -> ResilientAuthError:
    """Make an error that is also the one that azure-core's pipeline and azure-identity's chains expect."""
    core = sys.modules.get("azure.core.exceptions")
    theirs = getattr(core, "ClientAuthenticationError", None)
    if theirs is None or isinstance(error, theirs):
        return error
    if isinstance(error, ProviderUnavailable) or getattr(error, "error", None) == _SIGN_IN_AGAIN:
        # A chain that could catch it has imported it.
        theirs = getattr(sys.modules.get("azure.identity"), "CredentialUnavailableError", theirs)
    kind: Any = type(error)
    both = _both(kind, theirs)
    made: Any = both.__new__(both, *error.args)
    made.args, made.message = error.args, str(error)
    made.__dict__.update(error.__dict__)
    made.__cause__ = error.__cause__
    made.__suppress_context__ = True
    told: ResilientAuthError = made
    return told


#: What azure-core's constructors would have set.
_AZURE_ATTRIBUTES = (
    "reason", "status_code", "response", "model", "error", "inner_exception", "exc_type", "exc_value", "exc_traceback",
)  # fmt: skip


@functools.cache
def _both(ours: type[Any], theirs: type[Any]) -> type[Any]:
    def reduce(error: Any) -> Any:
        # azure-core need not be there where it is unpickled.
        if isinstance(error, ProviderUnavailable):
            return _rebuild, (ours, (error.message,), {"authority": error.authority, "retry_after": error.retry_after})
        if isinstance(error, ConfigurationError):
            return _rebuild, (ours, error.args, {})
        return _rebuild, (ours, (error.error, error.description), {"claims": error.claims})

    attributes = dict.fromkeys(_AZURE_ATTRIBUTES) | {
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


def denial(result: Any) -> TokenDenied:
    """Make an error of MSAL's way of saying no."""
    if not isinstance(result, Mapping):
        return TokenDenied(_SIGN_IN_AGAIN, "there is no token for this account, and none can be had: sign the user in")
    error = str(result.get("error") or "denied")
    return TokenDenied(error, str(result.get("error_description") or ""), claims=result.get("claims"))
