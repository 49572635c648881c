"""The wrapper around an application of MSAL's that was built elsewhere."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, overload

import msal
from msal.throttled_http_client import ThrottledHttpClient

from .._policy.checks import called
from .._policy.endpoint import origin_of
from .._wire.owners_client import built_by_msal
from ..errors import ConfigurationError
from ..settings import Settings
from .applications import ClientApplication, ConfidentialClientApplication, PublicClientApplication
from .exchange import transport_for
from .identity import identity_of
from .managed_identity import ManagedIdentityClient, wrap_managed_identity
from .methods import ResilientApplication
from .session import Session

MYPY: bool = False  # mypy, and it alone, takes a variable of this name for true

__all__ = ["Awaited", "wrap"]


class Awaited:
    """What tells an application whose methods are coroutines; the one for threads is underneath."""

    _app: Any


class _Wrapped:
    """What tells a wrapper from a drop-in: MSAL's state stays with the application that was wrapped."""

    _ra_origin: Any

    @property
    def token_cache(self) -> Any:
        """The wrapped application's token cache, which may be swapped on either."""
        return self._ra_origin.token_cache

    @token_cache.setter
    def token_cache(self, cache: Any) -> None:
        self._ra_origin.token_cache = cache

    def _ra_initialise(self) -> None:
        self._ra_ready()  # type: ignore[attr-defined]


class _WrappedClient(_Wrapped, ClientApplication):
    pass


class _WrappedPublicClient(_Wrapped, PublicClientApplication):
    pass


class _WrappedConfidentialClient(_Wrapped, ConfidentialClientApplication):
    pass


def _wrapped(app: Any, resilience: Settings | None) -> Any:
    if isinstance(app, (ResilientApplication, ManagedIdentityClient)):
        if resilience is not None:
            raise ConfigurationError("app is resilient already: give resilience to its constructor")
        return app
    if isinstance(app, msal.ManagedIdentityClient):
        return wrap_managed_identity(app, resilience)
    kinds = (
        (msal.ConfidentialClientApplication, _WrappedConfidentialClient),
        (msal.PublicClientApplication, _WrappedPublicClient),
        (msal.ClientApplication, _WrappedClient),
    )
    kind = next((ours for theirs, ours in kinds if isinstance(app, theirs)), None)
    if kind is None:
        raise ConfigurationError(
            "app must be an application of MSAL's, such as msal.ConfidentialClientApplication, "
            f"not {type(app).__name__}"
        )
    session = Session(resilience, app.__dict__)
    raw = app.http_client.http_client
    transport = transport_for(session, app.client_id, built_by_msal(raw) or {"http_client": raw})
    identity = replace(identity_of(app), verified=transport.wire.identity.verified)
    session.check_cache(app.token_cache, identity)
    wrapped = object.__new__(kind)
    # A fresh throttle: what MSAL's has seen was returned to it, and would be replayed.
    wire = wrapped.__dict__["http_client"] = ThrottledHttpClient(transport)
    # What MSAL does on the caller's thread goes over our transport too.
    for name in ("client", "_regional_client", "authority"):
        part = copy.copy(app.__dict__.get(name))
        if part is not None:
            part._http_client = wire
        wrapped.__dict__[name] = part
    authority = origin_of(app.authority.token_endpoint)
    wrapped._ra_begin(session, app, type(app), transport, authority)
    session.identify(identity, wrapped._ra_ownership)
    wrapped._ra_bind()
    session.announce()
    wrapped._ra_pin()
    return wrapped


if MYPY:
    # To mypy, an application of MSAL's is no kind in particular: what is returned is each kind.
    class _AnyKind(ConfidentialClientApplication, PublicClientApplication, ManagedIdentityClient):  # type: ignore[misc]
        @overload
        def acquire_token_for_client(
            self,
            scopes: list[str],
            claims_challenge: str | None = None,
            fmi_path: str | None = None,
            forwarded_client_claims: str | None = None,
            **kwargs: Any,
        ) -> dict[str, Any]: ...
        @overload
        def acquire_token_for_client(self, *, resource: str, claims_challenge: str | None = None) -> dict[str, Any]: ...
        def acquire_token_for_client(self, *args: Any, **kwargs: Any) -> dict[str, Any]: ...
        @overload
        def keep_fresh(self, scopes: list[str], account: dict[str, Any] | None = None) -> None: ...
        @overload
        def keep_fresh(self, *, resource: str) -> None: ...
        def keep_fresh(self, *args: Any, **kwargs: Any) -> None: ...

    def wrap(app: Any, *, resilience: Settings | None = None) -> _AnyKind: ...

else:

    @overload
    def wrap(
        app: msal.ConfidentialClientApplication, *, resilience: Settings | None = None
    ) -> ConfidentialClientApplication: ...
    @overload
    def wrap(app: msal.PublicClientApplication, *, resilience: Settings | None = None) -> PublicClientApplication: ...
    @overload
    def wrap(app: msal.ClientApplication, *, resilience: Settings | None = None) -> ClientApplication: ...
    @overload
    def wrap(app: msal.ManagedIdentityClient, *, resilience: Settings | None = None) -> ManagedIdentityClient: ...
    @called("resilience", elsewhere="settings")
    def wrap(app, *, resilience=None):
        """Make an MSAL application resilient that was built elsewhere.

        Args:
            app: An application of MSAL's, or a subclass's. It is left as it is; its token cache and http_client are
                shared.
            resilience: What to do otherwise than by default.

        Returns:
            An object with the same methods and results, which is also an instance of the same MSAL class. One that is
            resilient already is returned as it is.

        Raises:
            ConfigurationError: `app` is no application of MSAL's.
        """
        return _wrapped(app, resilience)
