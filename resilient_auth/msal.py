"""MSAL, resilient: `from resilient_auth import msal` in place of `import msal`, and nothing else to change."""

from __future__ import annotations

from typing import Any

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


def __getattr__(name: str) -> Any:
    # Whatever else this release of MSAL has, its submodules among it.
    return getattr(_msal, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *dir(_msal)})
