"""What a caller wants of a credential, and how one is asked."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .._policy.checks import check_scopes
from .._policy.subject import Subject
from ..errors import ConfigurationError

__all__ = ["CredentialCall", "CredentialRequest", "allowed_tenants", "key_for", "wanted_by", "way_to_ask"]

_TENANT = re.compile(r"[A-Za-z0-9.-]+")
_KEYWORDS = frozenset({"claims", "tenant_id", "enable_cae"})
_EXAMPLE = '"https://vault.azure.net/.default"'


@dataclass(frozen=True, slots=True)
class CredentialRequest:
    """Say which token somebody wants of a credential."""

    scopes: tuple[str, ...]
    claims: str | None = None
    tenant_id: str | None = None
    enable_cae: bool = False
    #: For whom; None where the credential gives everybody the same token.
    subject: Subject | None = None

    @property
    def key(self) -> Hashable:
        """Return which token it is. A challenge's claims ask for another one in its place."""
        if self.subject is not None:
            return key_for(self.subject, self.scopes, self.tenant_id, enable_cae=self.enable_cae)
        if self.tenant_id is None and not self.enable_cae:
            return self.scopes
        return self.scopes, self.tenant_id, self.enable_cae


def key_for(subject: Subject, scopes: tuple[Any, ...], tenant_id: Any, *, enable_cae: Any) -> Hashable:
    """Return which token of one user's it is: never by the scopes alone, which are looked up without a user."""
    return subject, scopes, tenant_id, enable_cae


def wanted_by(
    scopes: tuple[Any, ...], claims: Any, tenant_id: Any, enable_cae: Any, subject: Subject | None = None
) -> CredentialRequest:
    """Take a call's arguments, or say what is wrong with them before anything is sent."""
    if not scopes:
        raise ConfigurationError(f"scopes must not be empty: ask for get_token({_EXAMPLE})")
    for scope in scopes:
        if isinstance(scope, (list, tuple, set, frozenset)):
            raise ConfigurationError(f"scopes must be given one by one, not as a {type(scope).__name__}: write *scopes")
        if not isinstance(scope, str):
            raise ConfigurationError(f"scopes must be strings such as {_EXAMPLE}, not {type(scope).__name__}")
    check_scopes(list(scopes))
    if claims is not None:
        _check_claims(claims)
    if tenant_id is not None and not (isinstance(tenant_id, str) and _TENANT.fullmatch(tenant_id)):
        shown = repr(tenant_id) if isinstance(tenant_id, str) else type(tenant_id).__name__
        raise ConfigurationError(f"tenant_id must be a tenant's id or domain name as a string, not {shown}")
    if not isinstance(enable_cae, bool):
        raise ConfigurationError(f"enable_cae must be True or False, not {type(enable_cae).__name__}")
    return CredentialRequest(scopes, claims or None, tenant_id, enable_cae, subject)


def _check_claims(claims: Any) -> None:
    fix = "give the challenge's claims as JSON text, decoded from base64"
    if not isinstance(claims, str):
        raise ConfigurationError(f"claims must be a string, not {type(claims).__name__}: {fix}")
    try:
        fine = not claims or isinstance(json.loads(claims), dict)
    except (ValueError, RecursionError):
        fine = False
    if not fine:
        raise ConfigurationError(f"claims must be a JSON object: {fix}")


def allowed_tenants(tenants: Iterable[str]) -> frozenset[str]:
    """Take a list of tenants, or say what is wrong with it."""
    listed = () if isinstance(tenants, (str, bytes)) or not isinstance(tenants, Iterable) else tuple(tenants)
    if (not listed and tenants != []) and tenants not in ((), frozenset(), set()):
        raise ConfigurationError('additionally_allowed_tenants must be a list of tenants, or ["*"] for any')
    for tenant in listed:
        if not isinstance(tenant, str) or not (tenant == "*" or _TENANT.fullmatch(tenant)):
            raise ConfigurationError(
                f"additionally_allowed_tenants must hold tenants' ids or domain names, not {tenant!r}"
            )
    return frozenset(tenant.lower() for tenant in listed)


def way_to_ask(credential: Any, scopes: tuple[Any, ...]) -> Callable[..., Any]:
    """Return how a credential is asked for an `AccessToken` or the like, or say what is wrong before it is asked."""
    wanted_by(scopes, None, None, False)
    if isinstance(credential, type):
        raise ConfigurationError(f"credential is the class {credential.__name__}: make an object of it")
    for name in ("get_token", "get_token_info"):
        ask = getattr(credential, name, None)
        if callable(ask):
            found: Callable[..., Any] = ask
            return found
    raise ConfigurationError(
        f"credential must have get_token or get_token_info, and {type(credential).__name__} has neither: "
        "put an application of MSAL's, or a function, into ResilientCredential(...)"
    )


class CredentialCall:
    """Call a credential, or a function, by the richest of the ways that it knows.

    Args:
        credential: Has `get_token_info(*scopes, options={...})` or `get_token(*scopes, ...)`, as azure-core's do, or is
            a function.
    """

    def __init__(self, credential: Any) -> None:
        ways = [] if isinstance(credential, type) else ["get_token_info", "get_token"]
        way = next((way for way in ways if callable(getattr(credential, way, None))), None)
        method: Callable[..., Any] = credential if way is None else getattr(credential, way)
        self._method = method
        self._by_options = way == "get_token_info"
        self.is_function = way is None
        self.is_async = inspect.iscoroutinefunction(method) or inspect.iscoroutinefunction(
            getattr(method, "__call__", None)  # noqa: B004 - not whether it can be called, but how
        )
        #: Which of `claims`, `tenant_id` and `enable_cae` it knows.
        self.takes = _KEYWORDS if self._by_options else _keywords(method)
        named = credential if self.is_function and hasattr(credential, "__name__") else type(credential)
        self.name: str = named.__name__.strip("<>")

    def bound(self, *args: Any, **options: Any) -> Callable[[], Any]:
        """Return the call with these arguments; `options` are what `takes` names."""
        if self._by_options and options:
            return partial(self._method, *args, options=options)
        return partial(self._method, *args, **options)


def _keywords(call: Callable[..., Any]) -> frozenset[str]:
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return frozenset()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return _KEYWORDS
    return _KEYWORDS & {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
