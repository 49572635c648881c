"""Whom is asked, and over what: the key of all that applications share about a provider."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["DEFAULT_PORTS", "PLAIN", "Endpoint", "WireIdentity", "host_of", "origin_from", "origin_of"]

DEFAULT_PORTS = {"https": 443, "http": 80}

#: What an endpoint's path ends with behind the tenant, policy or realm, at the providers that MSAL speaks to.
_TAIL = frozenset(
    {
        "authorize", "connect", "devicecode", "deviceauth", "discovery", "keys", "oauth", "oauth2", "oidc",
        "openid-configuration", "openid-connect", "protocol", "token", "v1", "v1.0", "v2.0", ".well-known",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WireIdentity:
    """What tells wires apart: by the trust, the proxies and the client, not by time-outs.

    What came or failed over one wire says nothing about another one.

    Args:
        key: The same for wires of this process that are alike.
        fleet: The same in every process for wires that are alike; None where nothing tells what a wire is there.
        verified: Whether the provider's certificate is checked, as far as can be told.
        label: What it is, for health reports; "" for the one that is nobody's choice. Holds no secret.
    """

    key: str
    fleet: str | None = field(default=None, compare=False)
    verified: bool = field(default=False, compare=False)
    label: str = field(default="", compare=False)

    @property
    def keeps(self) -> str | None:
        """The name under which a store keeps what came over it; None where nothing is kept or taken from there."""
        return self.fleet if self.verified else None


#: Where there is no wire of ours: somebody else's credential.
PLAIN = WireIdentity("")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A tenant, policy or realm of a provider, over one wire.

    Args:
        origin: Scheme, host and port: what errors, events and health call it.
        realm: What in its path tells it from others at that origin; "" for the origin as such.
        wire: Over which it is asked.
    """

    origin: str
    realm: str = ""
    wire: WireIdentity = PLAIN

    @classmethod
    def of(cls, url: str, wire: WireIdentity) -> Endpoint:
        """Return the one that a URL belongs to, such as a token endpoint's or an authority's."""
        parts = urlsplit(url)
        segments = list(filter(None, parts.path.split("/")))
        while segments and segments[-1].lower() in _TAIL:
            segments.pop()
        # B2C's policy may stand in the query.
        policy = ""
        if parts.query:
            policy = next((f"?{part}" for part in parts.query.split("&") if part.startswith("p=")), "")
        return cls(origin_of(url), "/".join(segments) + policy, wire)

    @property
    def site(self) -> Endpoint:
        """The provider as a whole, over the same wire."""
        return Endpoint(self.origin, "", self.wire) if self.realm else self

    @property
    def lane(self) -> str:
        """The name of the lane of workers that ask it."""
        return f"{self.origin} over {self.wire.label}" if self.wire.label else self.origin

    def __str__(self) -> str:
        return self.origin


def origin_of(url: str) -> str:
    """Return the origin of a URL, written in the one way in which origins are compared."""
    parts = urlsplit(url)
    try:
        return origin_from(parts.scheme, parts.hostname or "", parts.port)
    except ValueError:  # a port that is none
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"


def origin_from(scheme: str, host: str, port: int | None) -> str:
    """Write an origin in the one way in which origins are compared: lower case, and no default port."""
    host = host.lower().strip("[]")
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" if port in (None, DEFAULT_PORTS.get(scheme)) else f"{scheme}://{shown}:{port}"


def host_of(url: str) -> str | None:
    """Return the host of a URL in lower case, with its port where that isn't 443; None where there is none."""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name:
        return None
    name = f"[{name}]" if ":" in name else name.removesuffix(".")
    return name if port in (None, 443) else f"{name}:{port}"
