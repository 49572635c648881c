"""MSAL's managed identity client, resilient (G12, G24)."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import msal

from .._engine.cache import CacheEntry
from .._engine.single_flight import Exchange
from .._policy.checks import called
from .._policy.endpoint import Endpoint, origin_of
from .._policy.failure import Purpose
from .._wire.exchange_context import ExchangeContext
from ..errors import Closed, ConfigurationError
from ..settings import Settings
from ..token import Token, TokenRequest, fingerprint
from .exchange import carry_out, transport_for
from .identity import Identity, declared
from .late_binding import Resilient
from .plans import Plan, plan_token
from .results import read
from .session import Session
from .token_cache import ExchangeView

if TYPE_CHECKING:
    from .declared import classes as originals
else:
    originals = msal

__all__ = ["ManagedIdentityClient", "wrap_managed_identity"]

_Original = msal.ManagedIdentityClient
_IMDS = "http://169.254.169.254"


def _endpoint() -> str:
    """Return which endpoint MSAL is going to ask, by the environment, as it does."""
    for name, besides in (("IDENTITY_ENDPOINT", "IDENTITY_HEADER"), ("MSI_ENDPOINT", "MSI_SECRET")):
        if {name, besides} <= os.environ.keys():
            return origin_of(os.environ[name])
    # A release of MSAL's without this would look for it elsewhere: then it is named by the address that most have.
    of_arc = getattr(msal.managed_identity, "_get_arc_endpoint", lambda: None)()
    return origin_of(of_arc or os.environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST", _IMDS))


class ManagedIdentityClient(Resilient, originals.ManagedIdentityClient):
    """Do what `msal.ManagedIdentityClient` does, through an outage too.

    Args:
        managed_identity: As in MSAL.
        http_client: As in MSAL; it stays the wire. None for our own.
        token_cache: As in MSAL.
        http_cache: As in MSAL.
        resilience: What to do otherwise than by default.
        kwargs: What else MSAL takes.
    """

    @called("resilience", elsewhere="settings")
    def __init__(
        self,
        managed_identity: Any,
        *,
        http_client: Any = None,
        token_cache: Any = None,
        http_cache: Any = None,
        resilience: Settings | None = None,
        **kwargs: Any,
    ) -> None:
        cache = msal.TokenCache() if token_cache is None else token_cache
        session = Session(resilience, self.__dict__, "_token_cache")
        arguments = {"http_client": http_client, "http_cache": http_cache}
        transport = transport_for(session, "", arguments)
        # Service Fabric's certificates are pinned by MSAL, which insists on a requests.Session for that.
        wire = http_client if os.environ.get("IDENTITY_SERVER_THUMBPRINT") and http_client is not None else transport
        super().__init__(
            managed_identity, http_client=wire, token_cache=cache, http_cache=arguments["http_cache"], **kwargs
        )
        self._token_cache = cache  # MSAL replaces one that is falsy
        identity = self._managed_identity.get("Id")
        if identity:  # the system-assigned one is another on each machine
            kind = self._managed_identity.get("ManagedIdentityIdType")
            capabilities = declared(self._client_capabilities)
            session.identify(Identity(f"managed identity by {kind}", str(identity), capabilities))
        else:
            session.look_at_cache()
        self._ra_take(session, transport)
        for scopes in session.settings.keep_fresh:
            if len(scopes) != 1:
                raise ConfigurationError(
                    f"keep_fresh must name one resource at a time for a managed identity, not {scopes}"
                )
            self.keep_fresh(resource=scopes[0].removesuffix("/.default"))

    def acquire_token_for_client(self, *, resource: str, claims_challenge: str | None = None) -> dict[str, Any]:
        """Get the managed identity's token, as MSAL's method of this name; a held one is served in a microsecond."""
        if claims_challenge is None and resource.__class__ is str:
            answer = self._ra_hit(resource)
            if answer is not None:
                return answer
        return self._ra_for_client(resource=resource, claims_challenge=claims_challenge).run()

    def keep_fresh(self, *, resource: str) -> None:
        """Get a token and refresh it ahead of need from now on, with or without traffic (G5). Returns at once."""
        self._ra_keep_fresh(self._ra_for_client(resource=resource))

    def _ra_for_client(self, *, resource: str, claims_challenge: str | None = None) -> Plan:
        if not isinstance(resource, str) or not resource.strip():
            raise ConfigurationError(
                f"resource must be one resource's identifier, such as 'https://vault.azure.net', not {resource!r}"
            )
        session = self._ra_session
        if session.closed:
            raise Closed("this client was closed: make a new one, or close it later")
        endpoint = Endpoint(_endpoint(), wire=self._ra_transport.wire.identity)
        identity = self._managed_identity.get("Id", "SYSTEM_ASSIGNED_MANAGED_IDENTITY")
        request = TokenRequest(endpoint.origin, str(identity), "managed_identity", (resource,))
        query = {
            "client_id": identity,
            "environment": "localhost",
            "realm": "managed_identity",
            "home_account_id": None,
        }

        def found(cache: Any) -> Token | None:
            return read(session, cache, (resource,), query)

        if claims_challenge:
            # MSAL needs the refused token in its cache, to tell its hash; nobody else may find it there.
            entry = session.memory.entry(request, (endpoint,), Purpose.MANAGED_IDENTITY)
            refused = entry.token
            try:
                refused = refused or found(session.look_at_cache())
            except Exception as error:  # noqa: BLE001 - a class of the owner's may raise anything
                session.reading.began(error)
            if refused is not None:
                entry.refused = fingerprint(refused.secret)
            if entry.token is not None:
                session.memory.drop_token(entry, entry.token, "claims_challenge")
        return plan_token(
            session,
            request,
            (endpoint,),
            lambda entry: self._ra_exchange(entry, resource, claims_challenge),
            repeatable=not claims_challenge,
            read=found,
            purpose=Purpose.MANAGED_IDENTITY,
            signature=None if claims_challenge else resource,
            claims=claims_challenge,
        )

    def _ra_exchange(self, entry: CacheEntry, resource: str, claims_challenge: str | None) -> Exchange:
        def ask(view: ExchangeView, _: ExchangeContext) -> Any:
            shadow = object.__new__(_Original)
            shadow.__dict__.update(self.__dict__)
            shadow._token_cache = view
            return _Original.acquire_token_for_client(shadow, resource=resource, claims_challenge=claims_challenge)

        # With a claims challenge MSAL looks up the token that was refused, to tell its hash.
        return partial(carry_out, self._ra_session, entry, ask, hide=not claims_challenge, managed_identity=True)


def wrap_managed_identity(app: Any, resilience: Settings | None) -> ManagedIdentityClient:
    """Make a managed identity client of MSAL's resilient that was built elsewhere."""
    return ManagedIdentityClient(
        app._managed_identity,
        http_client=app._http_client.http_client,
        token_cache=app._token_cache,
        client_capabilities=app._client_capabilities,
        resilience=resilience,
    )
