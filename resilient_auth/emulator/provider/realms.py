"""Tenants, policies and the other realms that a path can name, and the endpoint that it asks for."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlencode

Kind = Literal["v2", "v1", "b2c", "ciam", "adfs", "oidc"]

SHARED_TENANTS: Final = frozenset({"common", "organizations"})
PERSONAL_TENANT_ID: Final = "9188040d-6c67-4c5b-b112-36a304b66dad"
#: Entra's: the host that its documents name, its other names, and the one of them that MSAL's cache goes by.
CLOUDS: Final[tuple[tuple[str, tuple[str, ...], str | None], ...]] = (
    ("login.microsoftonline.com", ("login.windows.net", "login.microsoft.com", "sts.windows.net"), "login.windows.net"),
    ("login.partner.microsoftonline.cn", ("login.chinacloudapi.cn",), None),
    ("login.microsoftonline.us", ("login.usgovcloudapi.net",), None),
    ("login-us.microsoftonline.com", (), None),
)
_MICROSOFT_HOSTS: Final = frozenset(host for network, aliases, _ in CLOUDS for host in (network, *aliases))

_B2C_SUFFIX: Final = ".b2clogin.com"
_CIAM_SUFFIX: Final = ".ciamlogin.com"
_WELL_KNOWN: Final = (".well-known", "openid-configuration")
_LEAVES: Final = {
    "token": "token",
    "authorize": "authorize",
    "devicecode": "devicecode",
    "deviceauth": "authorize",
    "logout": "logout",
}
#: Of a region of Entra, such as `westeurope.login.microsoft.com`.
_REGIONAL = re.compile(r"[a-z0-9-]+\.login\.microsoft\.com")


def tenant_id(name: str) -> str:
    """Return the stable GUID of a tenant; `contoso`, `contoso.com` and `contoso.onmicrosoft.com` are one tenant."""
    lowered = name.lower()
    if lowered == "consumers":
        return PERSONAL_TENANT_ID
    try:
        return str(uuid.UUID(lowered))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"tenant:{lowered.partition('.')[0]}"))


def is_microsoft(host: str) -> bool:
    """Return whether a host is one of Entra's own, a regional one included."""
    name = host.partition(":")[0]
    return name in _MICROSOFT_HOSTS or _REGIONAL.fullmatch(name) is not None


@dataclass(frozen=True)
class Realm:
    """Whom a request addresses: a tenant of Entra, a B2C policy, ADFS or a plain OpenID provider."""

    kind: Kind
    host: str
    tenant: str
    base: str
    policy: str | None = None
    policy_in_query: bool = False

    @property
    def shared(self) -> bool:
        """Whether it stands for every tenant, as `/common` does."""
        return self.kind in ("v1", "v2") and self.tenant.lower() in SHARED_TENANTS

    @property
    def tid(self) -> str:
        """The tenant's GUID."""
        return tenant_id(self.tenant)

    @property
    def name(self) -> str:
        """What it hands out is good here alone: a policy, or a realm of a plain provider; Entra's tenants are one."""
        if self.kind in ("v1", "v2", "ciam"):
            return "entra"
        return f"{self.base}?p={self.policy}" if self.policy_in_query else self.base

    @property
    def origin(self) -> str:
        """Scheme, host and port by which the client came."""
        return f"https://{self.host}"

    def issuer(self, tid: str) -> str:
        """Return the issuer of tokens for a tenant; pass `"{tenantid}"` for the template of `/common`."""
        entra = "https://login.microsoftonline.com" if is_microsoft(self.host) else self.origin
        if self.kind == "v2":
            return f"{entra}/{tid}/v2.0"
        if self.kind == "v1":
            return f"https://sts.windows.net/{tid}/" if is_microsoft(self.host) else f"{self.origin}/{tid}/"
        if self.kind == "b2c":
            return f"{self.origin}/{tid}/v2.0/"
        if self.kind == "ciam":
            return f"https://{tid}.ciamlogin.com/{tid}/v2.0"
        return f"{self.origin}{self.base}"

    def access_token_issuer(self, tid: str) -> str:
        """Return the issuer of access tokens, which differs from that of ID tokens in ADFS alone."""
        return f"http://{self.host}/adfs/services/trust" if self.kind == "adfs" else self.issuer(tid)

    def endpoint(self, leaf: str) -> str:
        """Return the address of an endpoint, such as `"token"` or `"keys"`, on the host of the request."""
        version = "/v2.0" if self.kind in ("v2", "b2c", "ciam") else ""
        if self.kind == "oidc":
            path = f"{self.base}/{leaf}"
        elif leaf == "keys":
            path = f"{self.base}/discovery{version}/keys"
        else:
            path = f"{self.base}/oauth2{version}/{leaf}"
        query = "?" + urlencode({"p": self.policy}) if self.policy_in_query else ""
        return f"{self.origin}{path}{query}"


def locate(host: str, segments: tuple[str, ...], query: dict[str, str]) -> tuple[str, Realm | None]:
    """Return the name of the endpoint that a path asks for, and the realm that it names."""
    lowered = tuple(part.lower() for part in segments)
    if lowered == ("common", "discovery", "instance"):
        return "discovery", None
    if len(lowered) == 3 and lowered[:2] == ("common", "userrealm"):
        return "userrealm", None
    if lowered[-2:] == _WELL_KNOWN:
        prefix = segments[:-2]
        if prefix and prefix[-1].lower() == "v2.0":
            return "discovery", _versioned(host, prefix[:-1], query)
        return "discovery", _unversioned(host, prefix)
    if lowered[-3:] == ("discovery", "v2.0", "keys"):
        return "jwks", _versioned(host, segments[:-3], query)
    if lowered[-2:] == ("discovery", "keys"):
        return "jwks", _unversioned(host, segments[:-2])
    if not lowered:
        return "unknown", None
    leaf = _LEAVES.get(lowered[-1])
    if leaf and lowered[-3:-1] == ("oauth2", "v2.0"):
        return leaf, _versioned(host, segments[:-3], query)
    if leaf and lowered[-2:-1] == ("oauth2",):
        return leaf, _unversioned(host, segments[:-2])
    if lowered[-1] == "keys":
        return "jwks", _openid(host, segments[:-1])
    return (leaf, _openid(host, segments[:-1])) if leaf else ("unknown", None)


def _versioned(host: str, base: tuple[str, ...], query: dict[str, str]) -> Realm:
    name = host.partition(":")[0]
    if base and base[0].lower() == "tfp":
        base = base[1:]
    if name.endswith(_CIAM_SUFFIX):
        tenant = base[0] if base else name.removesuffix(_CIAM_SUFFIX)
        return Realm("ciam", host, tenant, f"/{tenant_id(tenant)}")
    policy = query.get("p")
    if len(base) >= 2:
        return Realm("b2c", host, base[0], f"/{base[0]}/{base[1].lower()}", base[1].lower())
    tenant = base[0] if base else name.removesuffix(_B2C_SUFFIX)
    if policy:
        return Realm("b2c", host, tenant, f"/{tenant}", policy.lower(), policy_in_query=True)
    return Realm("v2", host, tenant, _entra_base(tenant))


def _unversioned(host: str, base: tuple[str, ...]) -> Realm:
    if len(base) == 1 and base[0].lower() == "adfs":
        return Realm("adfs", host, "adfs", "/adfs")
    if host.partition(":")[0].endswith(_CIAM_SUFFIX):
        return _versioned(host, base, {})
    if len(base) == 1 and base[0].lower() != "dstsv2":
        return Realm("v1", host, base[0], _entra_base(base[0]))
    return _openid(host, base)


def _openid(host: str, base: tuple[str, ...]) -> Realm:
    path = "".join(f"/{part}" for part in base)
    return Realm("oidc", host, base[0] if base else host.partition(":")[0], path)


def _entra_base(tenant: str) -> str:
    lowered = tenant.lower()
    return f"/{lowered}" if lowered in SHARED_TENANTS else f"/{tenant_id(tenant)}"
