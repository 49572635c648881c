"""What callers give in another shape: an application of MSAL's as a credential, and whom to trust as MSAL takes it."""

from __future__ import annotations

import inspect
import os
import ssl
from typing import Any, TypeAlias

from .._policy.checks import require
from .._wire.environment import Authorities
from ..errors import ConfigurationError

__all__ = ["Verify", "credential_of", "trusted"]

#: Whom to trust, as in MSAL: True, False, or the path of a bundle of certificate authorities; or an SSL context.
Verify: TypeAlias = bool | str | os.PathLike[str] | ssl.SSLContext | None


def credential_of(given: Any, *, asynchronous: bool = False) -> Any:
    """Return a credential around an application of MSAL's, or of ours; anything else as it is.

    Args:
        given: What the caller gave as a credential.
        asynchronous: Whether tasks ask it.

    Raises:
        ConfigurationError: The application gives users' tokens alone, and nobody says whose.
    """
    names = ("acquire_token_for_client", "acquire_token_silent")
    ways = [] if isinstance(given, type) else [getattr(given, name) for name in names if hasattr(given, name)]
    if not ways:
        return given
    # Here, since an application of MSAL's has loaded most of it: who gives something else needs none of it.
    from ..credential import AsyncResilientCredential, ResilientCredential

    awaits = asynchronous or inspect.iscoroutinefunction(ways[0])
    try:
        return (AsyncResilientCredential if awaits else ResilientCredential)(given)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"credential is an application whose tokens can't be had as they are: {error}; give "
            "ResilientCredential(app, ...) in its place"
        ) from None


def trusted(verify: Verify, *, trust_env: bool) -> ssl.SSLContext | bool:
    """Return whom an httpx transport is to trust: a path is read here, since httpx warns of paths.

    Raises:
        ConfigurationError: It is something else, or no bundle can be read there.
    """
    fits = verify is None or isinstance(verify, (bool, str, os.PathLike, ssl.SSLContext))
    require(fits, f"verify must be True, False, the path of a CA bundle, or an SSL context, not {verify!r}")
    if isinstance(verify, ssl.SSLContext) or verify is False:
        return verify
    authorities = Authorities(verify)
    if authorities.named and (trust_env or isinstance(verify, (str, os.PathLike))):
        return authorities.context()
    return True
