"""Whose tokens are whose: the identity of an application, and which entries of MSAL's cache are its own.

MSAL knows an authority by its host and the first segment of a path. Ports, Keycloak's realms and B2C's policies are one
to it; so what it caches is marked with the token endpoint that gave it, as soon as we see the cache.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from msal.authority import WELL_KNOWN_AUTHORITY_HOSTS, WELL_KNOWN_B2C_HOSTS

from .._policy.endpoint import origin_of
from .._wire.discovery import aliases_of
from ..errors import ConfigurationError

__all__ = ["Identity", "Ownership", "declared", "identity_given", "identity_of", "is_applications_own", "marks_of"]

_DEFAULT_AUTHORITY = "https://login.microsoftonline.com/common"
_LONGEST = 1024
_ACCESS_TOKEN = "AccessToken"  # noqa: S105 - the name of a kind
_ID_TOKEN = "IdToken"  # noqa: S105 - the name of a kind
#: Members of ours in MSAL's entries: the endpoint that gave a token, what was declared to it, and whether nobody has
#: verified that it was that endpoint.
_ENDPOINT = "token_endpoint"
_CAPABILITIES = "client_capabilities"
_UNVERIFIED = "unverified"
#: MSAL's name of the grant by which a broker gives tokens.
_BROKERS = "broker"
_MANAGED_IDENTITY = "https://localhost/managed_identity"
#: MSAL asks for these in every user's grant, and in none of the application's own.
_USERS_SCOPES = frozenset({"openid", "profile", "offline_access"})

#: What the hosts of Microsoft's clouds end with, beside those that are well known.
_MICROSOFTS = (".login.microsoft.com", *(f".{domain}" for domain in WELL_KNOWN_B2C_HOSTS))


@dataclass(frozen=True, slots=True)
class Identity:
    """Name an application so that no other one has its tokens; the same in every process and after a restart."""

    #: The authority's whole URL, as `_written` writes it.
    authority: str
    client_id: str
    #: What is declared to the provider, in lower case and sorted: tokens under continuous access evaluation differ.
    capabilities: tuple[str, ...] = ()
    #: Whether it was given as MSAL's `oidc_authority`, whose document is at another address.
    openid: bool = False
    #: Whether it speaks to the authority that it names: over a wire that nobody verifies it may be anybody.
    verified: bool = True

    @property
    def label(self) -> str:
        """Name the application in a store; no other one's name begins with it."""
        what = [self.authority, self.openid, self.client_id, self.capabilities, self.verified]
        return json.dumps(what, separators=(",", ":"))


def identity_given(arguments: Mapping[str, Any]) -> Identity:
    """Return the identity of an application by its constructor's arguments, which is known in an outage too.

    Raises:
        ConfigurationError: The authority or the client's id can't name one.
    """
    oidc = arguments.get("oidc_authority")
    given = str(oidc or arguments.get("authority") or _DEFAULT_AUTHORITY)
    name = "oidc_authority" if oidc else "authority"
    example = "https://login.microsoftonline.com/<tenant>"
    try:
        parts = urlsplit(given)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None:
        raise ConfigurationError(f"{name} must be a URL such as {example}, not {given!r}")
    if parts.scheme != "https":
        raise ConfigurationError(f"{name} must start with https://, not {parts.scheme}://: write {example}")
    if not oidc and not parts.path.strip("/") and not host.endswith(".ciamlogin.com"):
        raise ConfigurationError(f"{name} must name a tenant: {given.rstrip('/')}/<tenant>")
    try:
        _ = parts.port
    except ValueError:
        raise ConfigurationError(f"{name} must be a URL with a port that is a number, if it has one") from None
    if "@" in parts.netloc:
        raise ConfigurationError(f"{name} must have no user name or password in it: leave out what is before the @")
    if " " in parts.geturl():
        raise ConfigurationError(f"{name} must have no blanks in it, not {given!r}")
    if len(given) > _LONGEST:
        raise ConfigurationError(f"{name} is {len(given)} characters long: {_LONGEST} at most")
    # MSAL takes dSTS for an OpenID provider.
    openid = bool(oidc) or parts.path.startswith("/dstsv2")
    listed = arguments.get("client_capabilities")
    if isinstance(listed, (str, bytes)) or not (listed is None or isinstance(listed, Iterable)):
        # MSAL would declare the letters of a text.
        raise ConfigurationError(f"client_capabilities must be a list such as ['cp1'], not {listed!r}")
    capabilities = declared(listed)
    client_id = arguments["client_id"]
    if client_id is not None and not isinstance(client_id, str):
        raise ConfigurationError(f"client_id must be the application's id, a string, not {type(client_id).__name__}")
    return Identity(_written(parts), str(client_id), capabilities, openid)


def identity_of(app: Any) -> Identity:
    """Return the identity of an application of MSAL's, by what MSAL has kept of its authority: the endpoints."""
    authority = app.authority
    capabilities = declared(app._client_capabilities)
    given = authority.__dict__.get("_oidc_authority_url")
    if given:
        return Identity(_written(urlsplit(given)), app.client_id, capabilities, openid=True)
    names = [
        _without(_written(urlsplit(endpoint)), leaf, adfs=authority.is_adfs)
        for endpoint, leaf in ((authority.token_endpoint, "token"), (authority.authorization_endpoint, "authorize"))
    ]
    if urlsplit(names[0]).hostname != authority.instance:
        names.append(f"https://{authority.instance}")
    # One name, where the endpoints lie where they do with Entra, B2C and ADFS.
    return Identity(" ".join(dict.fromkeys(names)), app.client_id, capabilities)


def declared(capabilities: Iterable[object] | None) -> tuple[str, ...]:
    """Return client capabilities written in one way: their values know no case."""
    return tuple(sorted({str(capability).lower() for capability in capabilities or ()}))


def _written(parts: SplitResult) -> str:
    """Write a URL in one way: in lower case what has no case, without what names nothing, all else as it is."""
    host = parts.hostname or ""
    path, query = parts.path.rstrip("/"), parts.query
    if _is_microsofts(host):  # tenants and policies have no case there
        path, query = path.lower(), query.lower()
    port = "" if parts.port in (None, 443) else f":{parts.port}"
    return f"https://{f'[{host}]' if ':' in host else host}{port}{path}{f'?{query}' if query else ''}"


def _is_microsofts(host: str) -> bool:
    return host in WELL_KNOWN_AUTHORITY_HOSTS or host.endswith(_MICROSOFTS)


def _without(endpoint: str, leaf: str, *, adfs: bool) -> str:
    """Return the authority that an endpoint belongs to, where that can be told; else the endpoint."""
    url, mark, query = endpoint.partition("?")
    suffix = f"/oauth2/{leaf}" if adfs else f"/oauth2/v2.0/{leaf}"
    return f"{url.removesuffix(suffix)}{mark}{query}"


def marks_of(event: Mapping[str, Any]) -> dict[str, str]:
    """Return what MSAL's entries are to say of the exchange that brought them.

    Args:
        event: As MSAL gives it to `TokenCache.add`; with `unverified` where it came over such a wire, and with the
            application's `client_capabilities`.
    """
    endpoint = event.get("token_endpoint")
    if not endpoint:
        return {}
    brokered = event.get("grant_type") == _BROKERS
    capabilities = declared(event.get(_CAPABILITIES)) if brokered else _declared_in(event.get("data"))
    marks = {_ENDPOINT: _written(urlsplit(endpoint)), _CAPABILITIES: ",".join(capabilities)}
    return marks | ({_UNVERIFIED: "yes"} if event.get(_UNVERIFIED) else {})


def _declared_in(data: Any) -> tuple[str, ...]:
    """Return the capabilities that a request declared, which MSAL sends as a claim."""
    try:
        return declared(json.loads(data["claims"])["access_token"]["xms_cc"]["values"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()


def is_applications_own(event: Mapping[str, Any]) -> bool:
    """Return whether an exchange was the application's own and no user's: its tokens belong to no account."""
    grant = event.get("grant_type")
    return grant == "client_credentials" or (grant is None and event.get("token_endpoint") == _MANAGED_IDENTITY)


@dataclass(frozen=True, slots=True)
class Ownership:
    """Decide which entries of MSAL's cache, which others may share, an application may take for its own."""

    identity: Identity
    #: The names of the authority's host.
    environments: frozenset[str]
    #: MSAL's name of the tenant, and the token endpoint; None until discovery has told.
    realm: str | None = None
    endpoint: str | None = None

    @classmethod
    def before_discovery(cls, identity: Identity) -> Ownership:
        """Return what can be said by an application's arguments alone."""
        return cls(identity, _names_of(urlsplit(identity.authority).hostname or ""))

    @classmethod
    def of(cls, identity: Identity, authority: Any) -> Ownership:
        """Return what can be said by MSAL's authority object."""
        endpoint = _written(urlsplit(authority.token_endpoint))
        return cls(identity, _names_of(authority.instance), authority.tenant, endpoint)

    @property
    def cloud(self) -> str | None:
        """The origin of an authority that is a host and a tenant, and nothing that MSAL's cache would leave out."""
        return self._given_cloud() if self.endpoint is None else _origin_of_tenant(self.endpoint)

    @property
    def cloud_label(self) -> str | None:
        """Name the client at the tenants of its cloud, in a store; None where MSAL's cache tells no tenants apart."""
        cloud, identity = self._given_cloud(), self.identity
        return None if cloud is None else json.dumps([cloud, identity.client_id, identity.verified])

    @property
    def is_told_apart(self) -> bool:
        """Whether MSAL's own keys tell this authority from every other one."""
        cloud = self.cloud
        if self.endpoint is not None and urlsplit(self.endpoint).hostname not in self.environments:
            cloud = cloud or self._given_cloud()  # the host in MSAL's keys is that of the authority as it was given
        return cloud is not None and urlsplit(cloud).port is None

    def _given_cloud(self) -> str | None:
        parts = urlsplit(self.identity.authority)
        is_tenant = not self.identity.openid and not parts.query and parts.path.count("/") <= 1
        return origin_of(self.identity.authority) if is_tenant else None

    def covers(self, kind: str, entry: Mapping[str, Any], *, unmarked: bool) -> bool:
        """Return whether an entry is this application's.

        Args:
            kind: MSAL's credential type.
            entry: MSAL's.
            unmarked: Whether to take one that doesn't say which endpoint gave it: it was there before we were.
        """
        client_id, family = entry.get("client_id"), kind == "RefreshToken" and entry.get("family_id")
        if entry.get("environment") not in self.environments:
            return False
        if kind != "Account" and client_id != self.identity.client_id and not family:
            return False
        tenants_own = kind in (_ACCESS_TOKEN, _ID_TOKEN)
        if tenants_own and self.realm is not None and entry.get("realm") != self.realm:
            return False
        endpoint = entry.get(_ENDPOINT)
        if endpoint is None:
            of_no_account = kind == _ACCESS_TOKEN and entry.get("home_account_id") is None
            return unmarked and not (of_no_account and _USERS_SCOPES & set(str(entry.get("target")).split()))
        if kind == _ACCESS_TOKEN and entry.get(_CAPABILITIES) != ",".join(self.identity.capabilities):
            return False
        if (_UNVERIFIED in entry) is self.identity.verified:
            return False
        return self._is_of(str(endpoint), tenants_own=tenants_own)

    def claim(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return an entry that was kept for this application elsewhere, marked as its own."""
        if self.endpoint is None or entry.get("environment") not in self.environments:
            return dict(entry)
        marks = {_ENDPOINT: self.endpoint, _CAPABILITIES: ",".join(self.identity.capabilities)}
        return marks | ({} if self.identity.verified else {_UNVERIFIED: "yes"}) | dict(entry)

    def _is_of(self, endpoint: str, *, tenants_own: bool) -> bool:
        """Return whether an endpoint is this authority's; a user's refresh token is good in all tenants of a cloud."""
        if endpoint == self.endpoint:
            return True
        own, origin = self.cloud, _origin_of_tenant(endpoint)
        if own is None:
            base, _, query = self.identity.authority.partition("?")
            within = endpoint.startswith(f"{base}/") and urlsplit(endpoint).query == query
            return self.endpoint is None and within
        if origin is not None and _is_entras(origin) and _is_entras(own):
            return True  # regional endpoints, other names of the host: MSAL's keys, which were compared, tell the rest
        return origin == own and (self.endpoint is None or not (tenants_own or self.identity.openid))


def _names_of(host: str) -> frozenset[str]:
    return frozenset((host, *aliases_of(host)))


def _origin_of_tenant(endpoint: str) -> str | None:
    """Return the origin of a token endpoint that is a tenant's, as those of Entra and ADFS are; None for others."""
    parts = urlsplit(endpoint)
    _, tenant, *leaf = [*parts.path.split("/"), ""]
    usual = ["oauth2", "token", ""] if tenant == "adfs" else ["oauth2", "v2.0", "token", ""]
    return origin_of(endpoint) if leaf == usual and not parts.query else None


def _is_entras(origin: str) -> bool:
    parts = urlsplit(origin)
    host = parts.hostname or ""
    return parts.port is None and (host in WELL_KNOWN_AUTHORITY_HOSTS or host.endswith(".login.microsoft.com"))
