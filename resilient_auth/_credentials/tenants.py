"""One application for other tenants, and for tokens under continuous access evaluation (G17)."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from urllib.parse import urlsplit

import msal

from .._engine.acquire import patience_of
from .._msal.applications import ConfidentialClientApplication, PublicClientApplication
from .._wire.exchange_context import ExchangeContext
from ..errors import ConfigurationError

__all__ = ["TenantApplications", "entra"]

_CAE = "cp1"
#: How many are kept at most. A caller, and so an API's challenge, may name any tenant where that is allowed.
MOST_SIBLINGS = 256
_SHARED = frozenset({"common", "organizations", "consumers"})

#: Of a wrapped application, what a sibling's constructor is given: argument, and MSAL's attribute.
_KEPT = {
    "client_id": "client_id",
    "client_credential": "client_credential",
    "client_claims": "client_claims",
    "client_capabilities": "_client_capabilities",
    "app_name": "app_name",
    "app_version": "app_version",
    "azure_region": "_region_configured",
    "instance_discovery": "_instance_discovery",
}


class TenantApplications:
    """Make and keep the siblings of an application, which differ from it in tenant and declared capabilities alone.

    Of more than `MOST_SIBLINGS` the one that was asked for longest ago is let go. It isn't closed: for whoever waits
    for it, or is served what it holds, it goes on, and it is found again for as long as somebody has it.

    Args:
        app: A resilient application.
        tenants: Other tenants that may be asked for; `*` for any.
        shared_cache: Whether siblings need the refresh tokens in its cache.
    """

    def __init__(self, app: Any, tenants: frozenset[str], *, shared_cache: bool) -> None:
        self._app = app
        self._tenants = tenants
        self._shared_cache = shared_cache
        self._made: OrderedDict[tuple[str | None, bool], Any] = OrderedDict()
        #: Those that were let go, while somebody else has them.
        self._let_go: weakref.WeakValueDictionary[tuple[str | None, bool], Any] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """Start with a lock of one's own in a forked child."""
        self._lock = threading.Lock()

    def find(self, tenant_id: str | None, *, cae: bool) -> Any:
        """Find the application for a tenant, with or without CAE, as `missing` has made it.

        Raises:
            ConfigurationError: The tenant is another one than the application's, and none that may be asked for.
        """
        key = self._key(tenant_id, cae)
        if key == (None, False):
            return self._app
        # Discovery, in another thread, may have told the application's own tenant since `missing` was asked.
        app = self._kept(key) or self._keep(key, self._make(*key))
        if self._shared_cache and app.token_cache is not self._app.token_cache:
            app._ra_session.share(self._app.token_cache)
        return app

    def missing(self, tenant_id: str | None, *, cae: bool) -> Callable[[], object] | None:
        """Return how to make that application where there is none yet; it may ask for a discovery document."""
        key = self._key(tenant_id, cae)
        if key == (None, False) or self._kept(key) is not None:
            return None

        def make() -> None:
            session = self._app._ra_session
            patience = patience_of(session.settings.wait)
            limit: AbstractContextManager[object] = nullcontext()
            if patience < session.settings.discovery_wait:  # a constructor would wait for a document for that long
                limit = ExchangeContext(session.engine.clock.monotonic() + patience).under_way()
            with limit:
                self._keep(key, self._make(*key))

        return make

    def _kept(self, key: tuple[str | None, bool]) -> Any:
        """Find a sibling, which is the one asked for last then; None where there is none."""
        with self._lock:
            app = self._made.get(key)
            if app is not None:
                self._made.move_to_end(key)
                return app
            app = self._let_go.get(key)
        return None if app is None else self._keep(key, app)

    def _keep(self, key: tuple[str | None, bool], app: Any) -> Any:
        """Keep a sibling, unless another thread was faster; return the one that is kept."""
        with self._lock:
            kept = self._made.setdefault(key, app)
            self._let_go.pop(key, None)
            self._made.move_to_end(key)
            # Taken out under the lock, and gone outside of it: what a finaliser runs is nothing to wait for.
            gone = [self._made.popitem(last=False) for _ in range(len(self._made) - MOST_SIBLINGS)]
            self._let_go.update(gone)
        return kept

    def __iter__(self) -> Iterator[Any]:
        with self._lock:
            return iter([*self._made.values(), *self._let_go.values()])

    def close(self) -> None:
        """Forget the siblings' tokens; the connections are the application's."""
        for app in self:
            app._ra_session.close()

    def _key(self, tenant_id: str | None, cae: bool) -> tuple[str | None, bool]:
        authority = entra(self._app)
        if authority is None:  # B2C, ADFS and others have one tenant and no CAE
            return None, False
        own = _own_tenants(self._app, authority[1])
        declared = {str(name).lower() for name in _argument(self._app, "client_capabilities") or ()}
        with_cae = cae and _CAE not in declared
        if tenant_id is None or tenant_id.lower() in own:
            return None, with_cae
        bound = self._app._ra_bound
        if not ({"*", tenant_id.lower()} & self._tenants or own & _SHARED):
            if not bound:  # its tenant's other name isn't known yet
                return None, with_cae
            raise ConfigurationError(
                f"tenant_id {tenant_id!r} isn't the tenant of application {self._app.client_id}: add it to "
                "additionally_allowed_tenants if tokens of that tenant are really wanted"
            )
        return tenant_id.lower(), with_cae

    def _make(self, tenant_id: str | None, cae: bool) -> Any:
        app = self._app
        origin, tenant = entra(app) or ("", "")
        given = app.__dict__.get("_ra_arguments")
        arguments = dict(given) if given else {name: _argument(app, name) for name in _KEPT}
        for name in ("verify", "proxies", "timeout"):
            arguments.pop(name, None)
        arguments.update(
            authority=f"{origin}/{tenant_id or tenant}",
            http_client=app._ra_transport,
            token_cache=None,
            resilience=app._ra_session.settings.but(keep_fresh=()),
        )
        if cae:
            arguments["client_capabilities"] = [*(arguments.get("client_capabilities") or ()), _CAE]
        kind = ConfidentialClientApplication if isinstance(app, msal.ConfidentialClientApplication) else None
        made = (kind or PublicClientApplication)(**arguments)
        if self._shared_cache:
            # Not as the owner's: each takes and writes down what is its own in there.
            made._ra_session.share(app.token_cache)
            own, users = made._ra_session.shared_cache, app._ra_session.shared_cache
            if own is not None and users is not None:
                own.share_users(users)
        return made


def _argument(app: Any, name: str) -> Any:
    given = app.__dict__.get("_ra_arguments")
    return given.get(name) if given else app._ra_origin.__dict__.get(_KEPT[name])


def entra(app: Any) -> tuple[str, str] | None:
    """Return an application's origin and tenant, where it is one of Entra's."""
    given = app.__dict__.get("_ra_arguments")
    if given is None:
        authority = app._ra_origin.authority
        plain = not authority.is_adfs and not authority._is_b2c and not app._ra_origin.__dict__.get("_oidc_authority")
        # MSAL keeps the name of the host, without its port.
        known = urlsplit(authority.token_endpoint)
        host = known.netloc if known.hostname == authority.instance else authority.instance
        url = f"https://{host}/{authority.tenant}" if plain else ""
    else:
        url = "" if given.get("oidc_authority") else str(given.get("authority") or _DEFAULT)
    parts = urlsplit(url)
    path = [part for part in parts.path.split("/") if part]
    if len(path) != 1 or path[0].lower() == "adfs" or (parts.hostname or "").endswith(".ciamlogin.com"):
        return None
    return f"https://{parts.netloc}", path[0]


_DEFAULT = "https://login.microsoftonline.com/common"


def _own_tenants(app: Any, tenant: str) -> set[str]:
    """Return the names of an application's tenant: the one in its authority, and the one that discovery gave."""
    names = {tenant.lower()}
    if app._ra_bound:
        path = urlsplit(app._ra_origin.authority.token_endpoint).path.split("/")
        names.add(path[1].lower())
    return names
