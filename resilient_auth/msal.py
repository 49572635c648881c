"""MSAL, resilient: `from resilient_auth import msal` in place of `import msal`, and nothing else to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msal as _msal
from msal import (
    AutoRefresher,
    BrowserInteractionTimeoutError,
    IdTokenError,
    ManagedIdentityError,
    PopAuthScheme,
    Prompt,
    SerializableTokenCache,
    SystemAssignedManagedIdentity,
    TokenCache,
    UserAssignedManagedIdentity,
    __version__,
)

from ._process.loading import load

if TYPE_CHECKING:
    from ._msal.applications import (
        ClientApplication,
        ConfidentialClientApplication,
        ManagedIdentityClient,
        PublicClientApplication,
    )

__all__ = [
    "AutoRefresher",
    "BrowserInteractionTimeoutError",
    "ClientApplication",
    "ConfidentialClientApplication",
    "IdTokenError",
    "ManagedIdentityClient",
    "ManagedIdentityError",
    "PopAuthScheme",
    "Prompt",
    "PublicClientApplication",
    "SerializableTokenCache",
    "SystemAssignedManagedIdentity",
    "TokenCache",
    "UserAssignedManagedIdentity",
    "__version__",
]


#: Loaded when first used: to import this costs what importing MSAL does, and hardly more.
_APPLICATIONS = frozenset(
    {"ClientApplication", "ConfidentialClientApplication", "ManagedIdentityClient", "PublicClientApplication"}
)


def __getattr__(name: str) -> Any:
    if name in _APPLICATIONS:
        load("resilient_auth._msal.applications")
        from ._msal import applications

        value = globals()[name] = getattr(applications, name)
        return value
    # Whatever else this release of MSAL has, its submodules among it.
    return getattr(_msal, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(_msal)})
