"""Whose tokens are accepted: an issuer's address, the issuer names that it may sign for, and its tenant (G16)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from typing import Final, TypeGuard
from urllib.parse import urlsplit

from .._policy.checks import require
from .._policy.endpoint import host_of, origin_of
from ..errors import ConfigurationError

__all__ = [
    "IS_GUID",
    "PERSONAL",
    "Trust",
    "authorization_uri",
    "b2c",
    "entra",
    "external_id",
    "host_of",
    "is_address",
    "is_https",
    "named_host",
    "of_issuers",
]

_TEMPLATE: Final = "{tenantid}"
_GUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
IS_GUID = re.compile(_GUID)
_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_WELL_KNOWN: Final = "/.well-known/openid-configuration"
#: The tenant of personal accounts.
PERSONAL: Final = "9188040d-6c67-4c5b-b112-36a304b66dad"
_SHARED: Final = frozenset({"common", "organizations"})
#: Where version 1 tokens come from, by the host that signs in.
_VERSION_1: Final = {
    "login.microsoftonline.com": "https://sts.windows.net",
    "login.windows.net": "https://sts.windows.net",
    "login.microsoft.com": "https://sts.windows.net",
    "login.microsoftonline.us": "https://sts.windows.net",
    "login.partner.microsoftonline.cn": "https://sts.chinacloudapi.cn",
    "login.chinacloudapi.cn": "https://sts.chinacloudapi.cn",
}


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Say what is expected of one discovery document, and of the tokens that its keys sign.

    Args:
        discovery: The document's address; the key set's, where there is no document.
        issuers: What tokens may have as `iss`; the first one is the document's own. `{tenantid}` stands for a GUID.
        tenant: The one tenant that may stand there; None for the one that the document names.
        any_tenant: Whether any tenant may stand there, as for `common`.
        personal: Whether that may be the one of personal accounts.
        needs_tid: Whether tokens must have a `tid`.
        policy: B2C's user flow or custom policy, in lower case.
        hosts: Hosts that the document may name, next to its own; its tenant may stand in them.
        keys_alone: Whether `discovery` is the key set's address.
        plain: Whether it is http on this machine, by the owner's word.
    """

    discovery: str
    issuers: tuple[str, ...]
    tenant: str | None = None
    any_tenant: bool = False
    personal: bool = True
    needs_tid: bool = False
    policy: str | None = None
    hosts: tuple[str, ...] = field(default=())
    keys_alone: bool = False
    plain: bool = False

    @property
    def templated(self) -> bool:
        """Return whether a tenant stands in the issuers."""
        return any(_TEMPLATE in issuer for issuer in self.issuers)

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(_pattern(issuer) for issuer in self.issuers)

    def match(self, issuer: str) -> str | None:
        """Return the tenant that stands in an issuer, "" where none does; None when it isn't one of these."""
        for pattern in self._patterns:
            found = pattern.fullmatch(issuer)
            if found is not None:
                return found[1] if found.re.groups else ""
        return None

    def filled(self, tenant: str) -> frozenset[str]:
        """Fill a tenant into the issuers."""
        return frozenset(issuer.replace(_TEMPLATE, tenant) for issuer in self.issuers)

    def lets_sign(self, key_issuer: str | None, tenant: str, issuer: str) -> bool:
        """Return whether a key may sign for an issuer, where the key set says for whom it may.

        Entra's version 1 tokens are signed with keys whose issuer is the version 2 one of the same tenant.
        """
        if key_issuer is None:
            return True
        meant = key_issuer.replace(_TEMPLATE, tenant) if tenant else key_issuer
        return meant == issuer or meant in self.filled(tenant)

    def hosts_for(self, tenant: str | None) -> frozenset[str]:
        """Return the hosts that a document may name in which this tenant stands."""
        return frozenset(host.replace(_TEMPLATE, tenant or self.tenant or "") for host in self.hosts)

    def named_by(self, issuer: object) -> tuple[bool, str | None]:
        """Return whether a discovery document's issuer is the expected one, and the tenant that stands in it."""
        if not isinstance(issuer, str):
            return False, None
        if issuer in self.issuers:
            return True, None
        tenant = self.match(issuer)
        return tenant is not None and self.tenant in (None, tenant), tenant


def _pattern(issuer: str) -> re.Pattern[str]:
    first, *rest = (re.escape(part) for part in issuer.split(_TEMPLATE))
    return re.compile(first + "".join(("(" + _GUID + ")" if n == 0 else r"\1") + part for n, part in enumerate(rest)))


def of_issuers(
    issuer: object, discovery: str | None = None, jwks_uri: str | None = None, *, http_on_loopback: bool = False
) -> tuple[Trust, ...]:
    """Trust issuers by name, each with a discovery document of its own unless an address is given.

    Raises:
        ConfigurationError: They aren't addresses that may be asked.
    """
    require(isinstance(http_on_loopback, bool), f"http_on_loopback must be True or False, not {http_on_loopback!r}")
    must = "an https address, or an http one on this machine" if http_on_loopback else "an https address"
    hint = f"issuer must be {must}, or several, not {issuer!r}{_hint_for(issuer, http_on_loopback)}"
    named = (issuer,) if isinstance(issuer, str) else issuer
    issuers = tuple(named) if isinstance(named, Sequence) else ()
    require(bool(issuers), hint)
    require(discovery is None or jwks_uri is None, "give discovery or jwks_uri: a discovery document names its key set")
    where = discovery if jwks_uri is None else jwks_uri
    for one in issuers:
        # With an address of its own for the document, an issuer is but a name; ADFS's access tokens have an http one.
        fits = where is not None or is_address(one, http_on_loopback)
        require(isinstance(one, str) and bool(one) and fits, hint)
    if where is not None:
        what = "discovery" if jwks_uri is None else "jwks_uri"
        hint = f"{what} must be {must}, not {where!r}{_hint_for(where, http_on_loopback)}"
        require(is_address(where, http_on_loopback), hint)
        return (_of_one(issuers, where, keys_alone=jwks_uri is not None),)
    return tuple(
        _of_one((one,), one.replace(_TEMPLATE, "common").rstrip("/") + _WELL_KNOWN) for one in dict.fromkeys(issuers)
    )


def _of_one(issuers: tuple[str, ...], where: str, *, keys_alone: bool = False) -> Trust:
    templated = any(_TEMPLATE in issuer for issuer in issuers)
    return Trust(
        discovery=where,
        issuers=issuers,
        any_tenant=templated,
        needs_tid=templated,
        keys_alone=keys_alone,
        plain=not is_https(where),
    )


def entra(
    tenant: str, authority: str = "https://login.microsoftonline.com", *, keys_of: str | None = None
) -> tuple[Trust, ...]:
    """Trust a tenant of Entra, or all of `organizations`, `common` or `consumers`; tokens of version 1 and 2."""
    query = "" if keys_of is None else f"?appid={_guid('keys_of', keys_of)}"
    authority, tenant = _origin("authority", authority), _name("tenant", tenant)
    if tenant == "consumers":
        tenant = PERSONAL
    version_1 = _VERSION_1.get(host_of(authority) or "", authority)
    return (
        Trust(
            discovery=f"{authority}/{tenant}/v2.0{_WELL_KNOWN}{query}",
            issuers=(f"{authority}/{_TEMPLATE}/v2.0", f"{version_1}/{_TEMPLATE}/"),
            tenant=tenant if IS_GUID.fullmatch(tenant) else None,
            any_tenant=tenant in _SHARED,
            personal=tenant != "organizations",
            needs_tid=True,
        ),
    )


def b2c(
    tenant: str, policies: object, *, tenant_id: str | None = None, authority: str | None = None
) -> tuple[Trust, ...]:
    """Trust user flows and custom policies of a B2C tenant, each of which has metadata of its own."""
    tenant = _name("tenant", tenant).removesuffix(".onmicrosoft.com")
    authority = _origin("authority", authority or f"https://{tenant}.b2clogin.com")
    hint = f'policies must be names such as ("b2c_1_signin",), not {policies!r}'
    require(isinstance(policies, Collection) and not isinstance(policies, (str, bytes)) and bool(policies), hint)
    names = [_name("policies", policy) for policy in policies] if isinstance(policies, Collection) else []
    return tuple(
        Trust(
            discovery=f"{authority}/{tenant_id or f'{tenant}.onmicrosoft.com'}/{policy}/v2.0{_WELL_KNOWN}",
            issuers=(f"{authority}/{_TEMPLATE}/v2.0/", f"{authority}/tfp/{_TEMPLATE}/{policy}/v2.0/"),
            tenant=_guid("tenant_id", tenant_id),
            policy=policy,
        )
        for policy in dict.fromkeys(names)
    )


def external_id(tenant: str, *, tenant_id: str | None = None, authority: str | None = None) -> tuple[Trust, ...]:
    """Trust an external tenant of Entra (CIAM)."""
    tenant = _name("tenant", tenant).removesuffix(".onmicrosoft.com")
    if IS_GUID.fullmatch(tenant):
        tenant_id = tenant_id or tenant
    authority = _origin("authority", authority or f"https://{tenant}.ciamlogin.com")
    where = tenant_id or f"{tenant}.onmicrosoft.com"
    return (
        Trust(
            discovery=f"{authority}/{where}/v2.0{_WELL_KNOWN}",
            issuers=(f"https://{_TEMPLATE}.ciamlogin.com/{_TEMPLATE}/v2.0", f"{authority}/{_TEMPLATE}/v2.0"),
            tenant=_guid("tenant_id", tenant_id),
            needs_tid=True,
            hosts=(f"{_TEMPLATE}.ciamlogin.com",),
        ),
    )


def authorization_uri(issuer: str, tenant: str | None) -> str | None:
    """Return where a client gets a token of the tenant of Entra that issued one; None where that can't be told."""
    if tenant is None or IS_GUID.fullmatch(tenant) is None:
        return None
    host = next((host for host, older in _VERSION_1.items() if issuer == f"{older}/{tenant}/"), None)
    authority = issuer.removesuffix(f"/{tenant}/v2.0") if host is None else f"https://{host}"
    return f"{authority}/{tenant}/oauth2/v2.0/authorize" if authority != issuer else None


def named_host(host: object) -> str:
    """Return a host that an owner named as `host` or `host:port`, written as `host_of` writes one.

    Raises:
        ConfigurationError: It is something else, and would never be met.
    """
    hint = f'hosts must be a tuple of host names, such as ("keys.example", "[::1]:8443"), not {host!r} in it'
    plain = isinstance(host, str) and host.isascii() and host.isprintable() and set(" /\\?#@*").isdisjoint(host)
    found = host_of(f"https://{host}") if plain else None
    require(found is not None, hint)
    return found or ""


def is_https(url: object) -> TypeGuard[str]:
    """Return whether something is an https address and nothing more: no user, no fragment, no blanks."""
    if not isinstance(url, str) or len(url) > 2048 or not url.isascii() or any(c <= " " for c in url):
        return False
    parts = urlsplit(url) if host_of(url) else None
    return parts is not None and parts.scheme == "https" and "@" not in parts.netloc and not parts.fragment


def is_address(url: object, http_on_loopback: bool) -> TypeGuard[str]:
    """Return whether keys may be fetched from something: https, or http on this machine by the owner's word."""
    return is_https(url) or (http_on_loopback and _is_plain_loopback(url))


def _is_plain_loopback(url: object) -> TypeGuard[str]:
    """Return whether something is an http address of this machine, by a name that no other machine has."""
    if not isinstance(url, str) or not url.startswith("http://") or not is_https(f"https{url[4:]}"):
        return False
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return False


def _hint_for(url: object, http_on_loopback: bool) -> str:
    """Return what makes a local address right, for who tries things out at home."""
    local = not http_on_loopback and _is_plain_loopback(url)
    return ": http_on_loopback=True allows it on this machine" if local else ""


def _origin(name: str, url: object) -> str:
    require(is_https(url), f"{name} must be an https address, not {url!r}")
    parts = urlsplit(str(url))
    require(
        not parts.path.strip("/") and not parts.query,
        f"{name} must be an address without a path, such as 'https://{parts.netloc}', not {url!r}: the tenant isn't a "
        "part of it",
    )
    return origin_of(str(url))


def _name(what: str, name: object) -> str:
    """Check a tenant or a policy: it becomes a part of an address."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None or ".." in name:
        raise ConfigurationError(f"{what} must be letters, digits, dots, hyphens and underscores, not {name!r}")
    return name.lower()


def _guid(what: str, given: str | None) -> str | None:
    if given is None:
        return None
    guid = given.lower() if isinstance(given, str) else ""
    require(IS_GUID.fullmatch(guid) is not None, f"{what} must be a GUID, not {given!r}")
    return guid
