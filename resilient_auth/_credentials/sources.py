"""Where a credential's tokens come from: an MSAL application, a managed identity, any other credential, a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msal

from .._msal.managed_identity import ManagedIdentityClient
from .._msal.methods import ResilientApplication
from .._msal.plans import Plan
from .._msal.wrapped import Awaited, wrap
from .._policy.subject import SubjectOf
from ..errors import ConfigurationError
from ..settings import Settings
from .request import CredentialRequest
from .source import Source, suspect, where_held
from .tenants import TenantApplications, entra
from .third_party import AnyCredential

__all__ = ["Source", "source_for"]


class _Application(Source):
    """Tokens of an MSAL application: its own, or a signed-in user's."""

    def __init__(self, app: Any, account: Mapping[str, Any] | None, tenants: frozenset[str], *, ours: bool) -> None:
        if account is None and not isinstance(app, msal.ConfidentialClientApplication):
            raise ConfigurationError(
                f"account must say whose tokens application {app.client_id} is to give: one of its get_accounts()"
            )
        self.name = f"application {app.client_id} at {app._ra_authority}"
        self._app = app
        self._account = account
        self._ours = ours
        in_entra = ("additionally_allowed_tenants",) if entra(app) is not None else ()
        self.takes = ("account", *in_entra, *(("settings",) if ours else ()))
        self.session = app._ra_session
        self._siblings = TenantApplications(app, tenants, shared_cache=account is not None)

    def prepare(self, wanted: CredentialRequest) -> Callable[[], object] | None:
        return self._siblings.missing(wanted.tenant_id, cae=wanted.enable_cae)

    def plan(self, wanted: CredentialRequest) -> Plan:
        app = self._siblings.find(wanted.tenant_id, cae=wanted.enable_cae)
        scopes = list(wanted.scopes)
        if self._account is None:
            plan: Plan = app._ra_for_client(scopes, wanted.claims, None, None, {})
        else:
            given: tuple[Any, ...] = None, False, wanted.claims, None, None, {}
            # A sibling shares the cache for its refresh token: the access tokens there are of another kind.
            plan = app._ra_silent(scopes, self._account, *given, silent=False, readable=app is self._app)
        return plan

    def forget(self, token: str) -> None:
        for app in (self._app, *self._siblings):
            for entry, _ in where_held(app._ra_session, token):
                app._ra_drop_challenged(entry.request)

    def suspect(self, token: str) -> None:
        for app in (self._app, *self._siblings):
            suspect(app._ra_session, token)

    def close(self) -> None:
        self._siblings.close()
        if self._ours:
            super().close()

    def after_fork(self) -> None:
        self._siblings.after_fork()


class _ManagedIdentity(Source):
    """Tokens of a managed identity: one resource each, of its own tenant."""

    def __init__(self, app: ManagedIdentityClient, *, ours: bool) -> None:
        self.name = "managed identity"
        self.takes = ("settings",) if ours else ()
        self.session = app._ra_session
        self._app = app
        self._ours = ours

    def plan(self, wanted: CredentialRequest) -> Plan:
        if len(wanted.scopes) != 1:
            raise ConfigurationError(
                f"scopes must be one scope for a managed identity, not {len(wanted.scopes)}: ask for each by itself"
            )
        return self._app._ra_for_client(
            resource=wanted.scopes[0].removesuffix("/.default"), claims_challenge=wanted.claims
        )

    def forget(self, token: str) -> None:
        cache = self.session.look_at_cache()
        for msal_entry in [e for e in cache.search("AccessToken", now=0) if e.get("secret") == token]:
            cache.remove_at(msal_entry)
        super().forget(token)

    def close(self) -> None:
        if self._ours:
            super().close()


def source_for(
    source: Any,
    *,
    position: int,
    account: Mapping[str, Any] | None,
    settings: Settings | None,
    tenants: frozenset[str],
    asynchronous: bool,
    subject: SubjectOf | None = None,
) -> Source:
    """Make a source of what the owner gave.

    Args:
        source: The owner's object.
        position: Which one it is; for messages.
        account: Whose tokens an application is to give; None for its own.
        settings: For what isn't resilient already.
        tenants: Other tenants that may be asked for.
        asynchronous: Whether the callers are asyncio tasks.
        subject: For whom each call is made, where that tells tokens apart.

    Raises:
        ConfigurationError: It is nothing that could give a token.
    """
    app = source._app if isinstance(source, Awaited) else source
    if isinstance(app, (msal.ClientApplication, msal.ManagedIdentityClient)):
        if subject is not None:
            raise ConfigurationError(
                f"subject means nothing to sources[{position}], an application that gives everybody the same token: "
                "leave subject out, or give a function that asks the application for the current user's token"
            )
        ours = not isinstance(app, (ResilientApplication, ManagedIdentityClient))
        resilient = wrap(app, resilience=settings) if ours else app
        if isinstance(resilient, ManagedIdentityClient):
            return _ManagedIdentity(resilient, ours=ours)
        return _Application(resilient, account, tenants, ours=ours)
    if isinstance(source, type):
        raise ConfigurationError(f"sources[{position}] is the class {source.__name__}: make an object of it")
    if not (callable(source) or hasattr(source, "get_token") or hasattr(source, "get_token_info")):
        raise ConfigurationError(
            f"sources[{position}] must be an application of MSAL's, a managed identity client, a credential with "
            f"get_token, or a function that takes scopes, not {type(source).__name__}"
        )
    return AnyCredential(source, settings, asynchronous=asynchronous, subject=subject)
