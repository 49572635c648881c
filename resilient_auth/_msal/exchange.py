"""Asking MSAL: with a passing copy of the application that finds no access token in its cache, over our transport."""

from __future__ import annotations

import base64
import copy
import json
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from functools import partial
from typing import Any

import msal.telemetry
from msal.exceptions import MsalServiceError
from msal.throttled_http_client import ThrottledHttpClientBase

from .._engine.cache import CacheEntry
from .._engine.single_flight import Exchange, Flight, Outcome
from .._policy.checks import check_scopes
from .._policy.endpoint import WireIdentity
from .._policy.freshness import MSAL_MARGIN
from .._process.loading import load
from .._wire import redaction
from .._wire.answers import Wire
from .._wire.exchange_context import ExchangeContext
from .._wire.http_client import Transport
from .._wire.owners_client import OwnersClient
from ..errors import ConfigurationError, ProviderUnavailable, ServerFailed
from ..token import TokenRequest, fingerprint
from .late_binding import LateBound
from .plans import Plan, plan_once
from .results import token_from
from .rotation.client import Signers, rotating, told
from .session import Session
from .token_cache import ExchangeView, Owns

__all__ = ["Exchanges", "MsalServerFailed", "carry_out", "original", "transport_for"]


class MsalServerFailed(ServerFailed, MsalServiceError):  # type: ignore[misc]
    """A 5xx status, which callers of MSAL may catch as they did."""

    _error = None
    _error_description = None


def transport_for(session: Session, client_id: str, arguments: dict[str, Any]) -> Transport:
    """Build the http_client that MSAL is to have: around the owner's, or our own that does what MSAL's would.

    Args:
        session: Whose engine it uses.
        client_id: For cool-downs.
        arguments: MSAL's `http_client`, `verify`, `proxies`, `timeout` and `http_cache`, which is replaced.
    """
    owners = arguments.get("http_client")
    if isinstance(owners, ThrottledHttpClientBase):  # another application's, around which MSAL looks too
        owners = owners.http_client
    settings = session.settings
    wire: Wire
    own: HttpxWire | None = None
    if owners is not None:
        # An application of ours that is wrapped again must not be retried twice.
        wire = owners.wire if isinstance(owners, Transport) else OwnersClient(owners, settings.clock)
    else:
        load("resilient_auth._wire.connection")
        from .._wire.connection import HttpxWire

        wire = own = HttpxWire(
            settings.clock,
            settings.connect_timeout,
            verify=arguments.get("verify", True),
            proxies=arguments.get("proxies"),
            timeout=arguments.get("timeout"),
        )
    if arguments.get("http_cache") is not None:
        arguments["http_cache"] = _for_wire(arguments["http_cache"], wire.identity)
    redaction.install()
    transport = Transport(session.engine, wire, client_id, MsalServerFailed)
    if own is not None:
        # An application that is dropped without being closed leaves no connection open.
        weakref.finalize(transport, own.abandon).atexit = False
    return transport


class _HttpCache(MutableMapping[str, Any]):
    """One wire's part of an owner's `http_cache`: MSAL replays documents and denials from it to whoever has it too."""

    def __init__(self, owners: MutableMapping[str, Any], wire: str) -> None:
        self._owners = owners
        self._mine = f"{wire} "

    def __getitem__(self, key: str) -> Any:
        return self._owners[self._mine + key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._owners[self._mine + key] = value

    def __delitem__(self, key: str) -> None:
        del self._owners[self._mine + key]

    def __iter__(self) -> Iterator[str]:
        return iter([key.removeprefix(self._mine) for key in list(self._owners) if key.startswith(self._mine)])

    def __len__(self) -> int:
        return len(list(iter(self)))


def _for_wire(http_cache: MutableMapping[str, Any], wire: WireIdentity) -> MutableMapping[str, Any]:
    if not all(hasattr(http_cache, name) for name in ("get", "__getitem__", "__setitem__", "__delitem__")):
        raise ConfigurationError(f"http_cache must be a mapping, such as a dict, not {type(http_cache).__name__}")
    # An owner may keep it in a file: where nothing names the wire in another process, nothing is shared.
    return {} if wire.fleet is None else _HttpCache(http_cache, wire.fleet)


def original(app: Any, name: str) -> Callable[..., Any]:
    """Find MSAL's own method, past ours."""
    for kind in type(app).__mro__:
        if kind.__module__.partition(".")[0] == "msal" and name in kind.__dict__:
            found = kind.__dict__[name]
            # What a test has put there by `unittest.mock` isn't bound, as it isn't for MSAL.
            method: Callable[..., Any] = found.__get__(app) if hasattr(type(found), "__get__") else found
            return method
    raise AttributeError(name)


def is_told_apart_by_msal(request: TokenRequest) -> bool:
    """Return whether what was asked for beside the usual is in the keys of MSAL's cache; see `variant_of`."""
    return request.variant.count(" ") < 2


def carry_out(
    session: Session,
    entry: CacheEntry,
    ask: Callable[[ExchangeView, ExchangeContext], Any],
    flight: Flight,
    *,
    hide: bool = True,
    extras: bool = False,
    managed_identity: bool = False,
) -> Outcome:
    """Make an exchange for a cache entry: `ask` has MSAL ask, with this view of its cache, which takes what comes.

    Args:
        session: The application's.
        entry: The token's place.
        ask: Returns what MSAL returns.
        flight: Who waits for it.
        hide: Whether MSAL finds no access token there.
        extras: Whether the answer holds more than the token, which is kept along with it.
        managed_identity: Whether it is a managed identity's.
    """
    generation, subject, keep = entry.generation, entry.request.subject, is_told_apart_by_msal(entry.request)
    exchange_context = ExchangeContext(
        flight.deadline, flight.earliest, subject=subject, managed_identity=managed_identity, flight=flight
    )
    with exchange_context.under_way():
        view = ExchangeView(
            session.look_at_cache(),
            lambda: keep and entry.generation == generation,
            session.owns,
            session.writing,
            hide=hide,
        )
        result = ask(view, exchange_context)
    token = token_from(session, result, view.response, exchange_context, extras=extras) if result else None
    entry.unkept = token if view.unkept else None
    return Outcome(token, result, owner=_home_account_id(view.response) if extras else None)


class Exchanges(LateBound):
    """Carry exchanges out."""

    def _ra_shadow(self, view: Any, flight: Flight | None = None) -> Any:
        """Make a passing copy of the application that finds no access token in its cache, so that MSAL asks."""
        if not self._ra_bound:
            self._ra_bind()
        origin = self._ra_origin
        shadow = object.__new__(self._ra_kind)
        shadow.__dict__.update(origin.__dict__)
        view.unverified = not self._ra_transport.wire.identity.verified
        view.capabilities = origin._client_capabilities
        throttled = shadow.__dict__["http_client"] = self.__dict__["http_client"]
        if origin is not self:
            shadow.authority = copy.copy(origin.authority)
            shadow.authority._http_client = throttled
        shadow.__dict__["token_cache"] = view
        for name in ("client", "_regional_client"):
            client = origin.__dict__.get(name)
            if client is not None:
                client = shadow.__dict__[name] = copy.copy(client)
                client._http_client = throttled
                if flight is not None and callable(client.client_assertion):
                    client.client_assertion = told(client.client_assertion, flight)
                client.on_obtaining_tokens = lambda event: view.add({**event, "environment": origin.authority.instance})
                client.on_removing_rt, client.on_updating_rt = view.remove_rt, view.update_rt
        return shadow

    def _build_client(self, client_credential: Any, authority: Any, skip_regional_client: bool = False) -> Any:
        # MSAL's name: it builds clients in its constructor, and for each refresh token.
        build, rotation = original(self, "_build_client"), self.__dict__.get("_ra_rotation")
        clients = build(client_credential, authority, skip_regional_client=skip_regional_client)
        if rotation is None:
            return clients

        def signer(credential: Any) -> Any:
            return build(credential, authority, skip_regional_client=True)[0]

        return rotating(clients, rotation, Signers(signer, self._ra_signers, authority.token_endpoint))

    def _ra_seeing_tokens(self, *, hide: bool = False, owns: Owns | None = None) -> Any:
        """Make a passing copy of the application that finds in its cache what is the application's, and no more."""
        session = self._ra_session
        view = ExchangeView(session.look_at_cache(), lambda: True, owns or session.owns, session.writing, hide=hide)
        return self._ra_shadow(view)

    def _ra_exchange(
        self, ask: Callable[[Any], Any], entry: CacheEntry, *, extras: bool = False, regional: bool = False
    ) -> Exchange:
        """Make the exchange that calls MSAL: `ask` is given the passing copy of the application."""

        def ask_there(view: ExchangeView, exchange_context: ExchangeContext) -> Any:
            shadow = self._ra_shadow(view, exchange_context.flight)
            shadow.__dict__["_build_telemetry_context"] = partial(self._ra_telemetry, shadow, entry)
            entry.ask_of(self._ra_authorities)
            has_region = regional and shadow.__dict__.get("_regional_client") is not None
            return self._ra_try_regions(ask, shadow, exchange_context) if has_region else ask(shadow)

        return partial(carry_out, self._ra_session, entry, ask_there, extras=extras)

    def _ra_telemetry(
        self, shadow: Any, entry: CacheEntry, /, *args: Any, refresh_reason: Any = None, **kwargs: Any
    ) -> Any:
        """Let MSAL tell the provider why it refreshes, which it can't know: its view of the cache is empty."""
        token, clock = entry.token, self._ra_session.engine.clock
        if token is not None and refresh_reason == msal.telemetry.AT_ABSENT:
            aging = token.remaining(clock.wall(), clock.monotonic()) >= MSAL_MARGIN
            refresh_reason = msal.telemetry.AT_AGING if aging else msal.telemetry.AT_EXPIRED
        return original(shadow, "_build_telemetry_context")(*args, refresh_reason=refresh_reason, **kwargs)

    def _ra_try_regions(self, ask: Callable[[Any], Any], shadow: Any, exchange_context: ExchangeContext) -> Any:
        """Ask the regional endpoint first and the global one when that fails (G12)."""
        exchange_context.attempts = 1
        try:
            return ask(shadow)
        except ProviderUnavailable:
            shadow._regional_client = None
            exchange_context.attempts = None
            return ask(shadow)

    def _ra_once(self, subject: object, ask: Callable[[Any], Any], *, hide: bool = True) -> Plan:
        """Plan an exchange whose result is nobody else's; MSAL may look for a token itself unless that is hidden."""
        session = self._ra_session

        def asked() -> Any:
            return ask(self._ra_seeing_tokens(hide=hide))

        return plan_once(session, self._ra_authorities, self.client_id, fingerprint(str(subject)), asked)

    def _ra_flow(self, subject: object, scopes: Any, name: str, /, *args: Any, **kwargs: Any) -> Plan:
        """Plan one of MSAL's flows, by the name of its method: an exchange whose result is nobody else's."""
        check_scopes(scopes, empty=True)
        return self._ra_once(subject, lambda app: original(app, name)(*args, **kwargs))


def _home_account_id(response: dict[str, Any]) -> str | None:
    """Return whose tokens an answer holds, as MSAL names it in its cache."""
    text = response.get("client_info")
    try:
        told = json.loads(base64.urlsafe_b64decode(f"{text}===")) if text else {}
        return f"{told['uid']}.{told['utid']}" if "uid" in told and "utid" in told else None
    except (ValueError, TypeError):
        return None
