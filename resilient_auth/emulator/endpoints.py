"""The endpoints that can be failed by name, and the host that each one lives on."""

from __future__ import annotations

from typing import Final, Literal

Host = Literal["idp", "api", "metadata"]

EVERYTHING: Final = "*"
UNKNOWN: Final = "unknown"
HANDSHAKE: Final = "handshake"

_HOSTS: Final[dict[str, Host]] = {
    "discovery": "idp",
    "jwks": "idp",
    "authorize": "idp",
    "token": "idp",
    "devicecode": "idp",
    "userrealm": "idp",
    "logout": "idp",
    UNKNOWN: "idp",
    EVERYTHING: "idp",
    "api": "api",
    "managed_identity": "metadata",
    "imds_compute": "metadata",
}

ENDPOINTS: Final = tuple(name for name in _HOSTS if name != UNKNOWN)


def host_of(endpoint: str) -> Host:
    """Return the host that serves an endpoint; `"*"` means the identity provider.

    Raises:
        ValueError: There is no endpoint of that name.
    """
    try:
        return _HOSTS[endpoint]
    except KeyError:
        raise ValueError(f"unknown endpoint {endpoint!r}: use one of {', '.join(ENDPOINTS)}") from None
