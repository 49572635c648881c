"""What discovery documents may say, and the names of Microsoft's clouds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .._policy.endpoint import host_of
from .._policy.failure import Purpose

__all__ = ["ALIASES", "Hosts", "aliases_of", "fault_in", "hosts_for"]


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts that a document may name: its own, those that belong to it, and those that the owner names."""

    #: With a port where that isn't 443.
    own: frozenset[str]
    owners: tuple[str, ...] = ()
    #: Whether a port makes no difference, since the question leaves it out.
    any_port: bool = False
    #: Whether its issuer may be anybody: ADFS has the name that its administrator gives it.
    any_issuer: bool = False

    def allow(self, url: str) -> bool:
        """Return whether an address is on one of them."""
        host = host_of(url)
        if host is None:
            return False
        if host in self.own or host in self.owners:
            return True
        if self.any_port and _name_of(host) in {_name_of(one) for one in self.own}:
            return True
        return any(_belongs(host, one) for one in self.own)

    def allow_issuer(self, issuer: str) -> bool:
        """Return whether an issuer may be the document's: nothing is sent there, so any of Microsoft's may."""
        if self.any_issuer:
            return True
        host = host_of(issuer)
        if host is None:
            return False
        return self.allow(issuer) or _is_microsofts(host) or host.partition(".")[2] in self.own


def hosts_for(purpose: Purpose, url: str, params: Mapping[str, Any], owners: tuple[str, ...]) -> Hosts:
    """Return the hosts that the document at an address may name.

    Args:
        purpose: What the document is.
        url: Where it is.
        params: What is asked there: for aliases, on whose behalf.
        owners: Hosts that the owner trusts besides.
    """
    asked = [url]
    if purpose is Purpose.ALIASES:
        asked.append(str(params.get("authorization_endpoint") or ""))
    own = frozenset(host for one in asked if (host := host_of(one)) is not None)
    # MSAL names the authority there without its port.
    adfs = urlsplit(url).path.lower().startswith(("/adfs/", "/dstsv2/"))
    return Hosts(own, owners, any_port=purpose is Purpose.ALIASES, any_issuer=adfs)


def fault_in(purpose: Purpose, text: str, hosts: Hosts) -> str | None:
    """Return why a document must not be kept; None when it may.

    Args:
        purpose: What it is.
        text: What it says.
        hosts: Those that it may name: secrets are posted there.
    """
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        return "it isn't JSON"
    if not isinstance(body, dict):
        return "it isn't a JSON object"
    if purpose is Purpose.ALIASES:
        return _fault_in_aliases(body, hosts)
    for name in ("authorization_endpoint", "token_endpoint", "device_authorization_endpoint"):
        if name in body or name != "device_authorization_endpoint":
            fault = _fault_in_address(name, body.get(name), hosts)
            if fault is not None:
                return fault
    issuer = body.get("issuer")
    if issuer is not None and not (isinstance(issuer, str) and hosts.allow_issuer(issuer)):
        # OpenID Connect Discovery 1.0, section 4.3; as far as providers keep to it, and MSAL wants it.
        return "its issuer isn't on the authority's host, nor on one that Settings(discovery_hosts=...) names"
    return None


def _fault_in_address(name: str, value: object, hosts: Hosts) -> str | None:
    if not isinstance(value, str) or not _is_https(value):
        return f"its {name} isn't an https URL"
    if not hosts.allow(value):
        # What a stranger wrote goes into a message: a host's characters alone.
        shown = "".join(c for c in (host_of(value) or "") if c.isascii() and (c.isalnum() or c in "-.:[]"))[:100]
        return (
            f"its {name} is on {shown}, another host than the authority's: if that is right, name it in "
            f'Settings(discovery_hosts=("{shown}",))'
        )
    return None


def _is_https(value: str) -> bool:
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname)


def _fault_in_aliases(body: Mapping[str, Any], hosts: Hosts) -> str | None:
    if "error" in body:
        return "it is an error"
    if "tenant_discovery_endpoint" in body:
        fault = _fault_in_address("tenant_discovery_endpoint", body["tenant_discovery_endpoint"], hosts)
        if fault is not None:
            return fault
    groups = body.get("metadata", [])
    if not isinstance(groups, list) or not all(
        isinstance(group, dict)
        and isinstance(group.get("aliases"), list)
        and all(isinstance(alias, str) for alias in group["aliases"])
        for group in groups
    ):
        return "its metadata isn't a list of aliases"
    return None


#: The host names of each Microsoft cloud, which MSAL asks for after a failure and with no account. They have not
#: changed in years; knowing them saves a call that can fail (G14). Source: the instance discovery endpoint.
_CLOUDS = (
    ("login.microsoftonline.com", "login.microsoft.com", "sts.windows.net", "login.windows.net"),
    ("login.partner.microsoftonline.cn", "login.chinacloudapi.cn"),
    ("login.microsoftonline.us", "login.usgovcloudapi.net"),
    ("login-us.microsoftonline.com",),
)

_ALIASES = {host: tuple(name for name in cloud if name != host) for cloud in _CLOUDS for host in cloud}

#: The same, as the endpoint would answer.
ALIASES = json.dumps(
    {
        "api-version": "1.1",
        "metadata": [
            {"preferred_network": cloud[0], "preferred_cache": cloud[-1], "aliases": list(cloud)} for cloud in _CLOUDS
        ],
    }
)


#: Hosts that MSAL knows for Microsoft's besides (`msal.authority`). One cloud's document may name another's host: where
#: a tenant of another cloud is asked for, it does.
_MICROSOFT = frozenset(name for cloud in _CLOUDS for name in cloud) | {
    "login.microsoftonline.de",
    "login.sovcloud-identity.de",
    "login.sovcloud-identity.fr",
    "login.sovcloud-identity.sg",
}
_MICROSOFT_DOMAINS = ("ciamlogin.com", "b2clogin.com", "b2clogin.cn", "b2clogin.us", "b2clogin.de")

#: Hosts by the one whose document names them. Source: https://accounts.google.com/.well-known/openid-configuration
_KNOWN = {
    "accounts.google.com": frozenset({"oauth2.googleapis.com", "openidconnect.googleapis.com", "www.googleapis.com"}),
}
#: A user pool's document is the region's, its endpoints are on the pool's own domain there. Source: Amazon Cognito's
#: developer guide, "Identity provider and relying party endpoints".
_COGNITO = re.compile(r"cognito-idp\.([a-z0-9-]{1,40})\.amazonaws\.com")


def _is_entra(host: str) -> bool:
    """Return whether a host is one of Entra's, a regional one (`westeurope.login.microsoft.com`) included."""
    return host in _MICROSOFT or host.partition(".")[2] in _MICROSOFT


def _is_microsofts(host: str) -> bool:
    return _is_entra(host) or any(host.endswith(f".{domain}") for domain in _MICROSOFT_DOMAINS)


def _belongs(host: str, to: str) -> bool:
    """Return whether the document of one host may name another one, by what providers are known to do."""
    if _is_entra(to):
        return _is_entra(host)
    if to.endswith(".ciamlogin.com"):
        # A tenant's name stands in one, its GUID in the other.
        return host.endswith(".ciamlogin.com") or _is_entra(host)
    if host in _KNOWN.get(to, ()):
        return True
    pool = _COGNITO.fullmatch(to)
    return pool is not None and host.endswith(f".auth.{pool[1]}.amazoncognito.com")


def _name_of(host: str) -> str:
    """Leave a host's port out."""
    return host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host


def aliases_of(host: str) -> tuple[str, ...]:
    """List the other names of a Microsoft cloud's host."""
    return _ALIASES.get(host, ())
