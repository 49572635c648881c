"""What the declared classes inherit from: MSAL's, but for mypy, which can't see into MSAL, nothing.

A base class without types would give ours every attribute that anybody asks for.
"""

MYPY: bool = False  # mypy, and it alone, takes a variable of this name for true

if MYPY:
    from builtins import object as ClientApplication  # noqa: N812
    from builtins import object as ConfidentialClientApplication  # noqa: N812
    from builtins import object as ManagedIdentityClient  # noqa: N812
    from builtins import object as PublicClientApplication  # noqa: N812
else:
    from msal import (
        ClientApplication,
        ConfidentialClientApplication,
        ManagedIdentityClient,
        PublicClientApplication,
    )

__all__ = [
    "ClientApplication",
    "ConfidentialClientApplication",
    "ManagedIdentityClient",
    "PublicClientApplication",
]
