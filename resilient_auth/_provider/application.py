"""MSAL's application methods, made resilient; `msal_app` puts them on MSAL's classes."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import msal.telemetry
from msal.exceptions import MsalServiceError
from msal.throttled_http_client import ThrottledHttpClient
from msal.token_cache import _compute_ext_cache_key

from .._flow import refresh
from .._flow.memory import Exchange, Slot
from .._flow.single_flight import Flight, Outcome
from .._policy.freshness import MSAL_MARGIN
from ..errors import AttemptTimeout, ConfigurationError, ProviderUnavailable, ServerFailed
from ..token import Token, TokenRequest, fingerprint
from . import redaction
from .discovery import aliases_of
from .session import Hit, Plan, Session, check_scopes
from .token_cache import ExchangeView, read
from .transport import Journey, Transport, origin_of
from .wire import HttpxWire, OwnersWire, Wire

__all__ = ["MsalServerFailed", "ResilientApplication", "transport_for"]


class MsalServerFailed(ServerFailed, MsalServiceError):  # type: ignore[misc]
    """A 5xx status, which callers of MSAL may catch as they did."""

    _error = None
    _error_description = None


def transport_for(session: Session, client_id: str, arguments: dict[str, Any]) -> Transport:
    """Build the http_client that MSAL is to have: around the owner's, or our own that does what MSAL's would.

    Args:
        session: Whose engine it uses.
        client_id: For cool-downs.
        arguments: MSAL's `http_client`, `verify`, `proxies` and `timeout`.
    """
    owners = arguments.get("http_client")
    settings = session.settings
    wire: Wire
    if owners is not None:
        # An application of ours that is wrapped again must not be retried twice.
        wire = owners.wire if isinstance(owners, Transport) else OwnersWire(owners)
    else:
        wire = HttpxWire(
            settings.clock,
            settings.connect_timeout,
            verify=arguments.get("verify", True),
            proxies=arguments.get("proxies"),
            timeout=arguments.get("timeout"),
        )
    redaction.install()
    return Transport(session.engine, wire, client_id, MsalServerFailed)


class ResilientApplication:
    """What both kinds of application have in common. State of ours begins with `_ra_`; all other state is MSAL's."""

    _ra_session: Session
    #: The object that has MSAL's state: this one, or the one that was wrapped.
    _ra_origin: Any
    #: The class of which exchanges make a passing copy.
    _ra_kind: type[Any]
    _ra_throttled: Any
    _ra_transport: Transport
    _ra_authority: str
    _ra_authorities: tuple[str, ...]
    _ra_bound: bool
    _ra_fast: tuple[Callable[[Any], Any], Callable[[], float], Callable[[], float], dict[str, Any]]

    def _ra_begin(self, session: Session, origin: Any, kind: type[Any], transport: Transport, authority: str) -> None:
        clock = session.engine.clock
        self.__dict__.update(
            _ra_session=session,
            _ra_origin=origin,
            _ra_kind=kind,
            _ra_transport=transport,
            _ra_authority=authority,
            _ra_authorities=(authority,),
            _ra_bound=False,
            # All that the way of a held token touches, one look-up away.
            _ra_fast=(session.memory.hits.get, clock.monotonic, clock.wall, session.home),
        )

        _applications.add(self)

    def _ra_after_fork(self) -> None:
        """Replace MSAL's locks in a forked child: another thread of the parent may have held them."""
        state = self._ra_origin.__dict__
        if "_telemetry_lock" in state:
            state["_telemetry_lock"] = threading.Lock()
        for throttle in (self.__dict__.get("http_client"), state.get("http_client")):
            if throttle is not None:
                throttle._expiring_mapping._lock = threading.Lock()

    def _ra_bind(self) -> None:
        """Have MSAL's own initialisation behind us; only that needs the discovery document."""
        if self._ra_bound:
            return
        engine = self._ra_session.engine
        wait = engine.settings.discovery_wait
        flight, mine = engine.flights.join(("bind", self._ra_session), engine.clock.monotonic() + wait + 1.0)
        if mine:
            outcome = Outcome()
            try:
                self._ra_initialise()
            except BaseException as error:
                outcome = Outcome(error=error)
                raise
            finally:
                engine.flights.end(flight)
                flight.land(outcome)
            return
        landed = flight.wait(wait)
        if landed is None:
            raise AttemptTimeout(
                f"{self._ra_authority} gave no discovery document in time", authority=self._ra_authority
            )
        if landed.error is not None:
            raise landed.error

    def _ra_initialise(self) -> None:
        """Run MSAL's initialisation on this object; a wrapped one has had it."""
        raise NotImplementedError  # pragma: no cover - the drop-in classes have it

    def _ra_ready(self) -> None:
        """Note where tokens come from, now that MSAL knows."""
        origin = self._ra_origin
        clients = [origin.__dict__.get("_regional_client"), origin.__dict__.get("client")]
        endpoints = [c.configuration["token_endpoint"] for c in clients if c is not None]
        found = tuple(dict.fromkeys(origin_of(endpoint) for endpoint in endpoints))
        self.__dict__.update(_ra_authorities=found or (self._ra_authority,), _ra_bound=True)

    def __getattr__(self, name: str) -> Any:
        # Reached for what MSAL's initialisation would have set, and on a wrapper for all that is the original's.
        if name.startswith(("_ra_", "__")) or "_ra_origin" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if self._ra_origin is not self:
            return getattr(self._ra_origin, name)
        if not self._ra_bound and self.__dict__.get("_ra_initialising") != threading.get_ident():
            self._ra_bind()
            return object.__getattribute__(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def close(self) -> None:
        """Forget the tokens held in memory, end refreshes ahead, and close idle connections.

        MSAL's token cache stays as it is. Calls that want a token raise `Closed` from then on.
        """
        self._ra_session.close()
        self._ra_transport.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ra_shadow(self, view: Any) -> Any:
        """Make a passing copy of the application that finds no access token in its cache, so that MSAL asks."""
        self._ra_bind()
        origin = self._ra_origin
        shadow = object.__new__(self._ra_kind)
        shadow.__dict__.update(origin.__dict__)
        instance = origin.authority.instance
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
                client.on_obtaining_tokens = lambda event: view.add(dict(event, environment=instance))
                client.on_removing_rt, client.on_updating_rt = view.remove_rt, view.update_rt
        return shadow

    def _ra_exchange(
        self, ask: Callable[[Any], Any], slot: Slot, *, extras: bool = False, regional: bool = False
    ) -> Exchange:
        """Make the exchange that calls MSAL: `ask` is given the passing copy of the application."""
        session = self._ra_session

        def exchange(flight: Flight) -> Outcome:
            generation = slot.generation
            journey = Journey(flight.deadline, flight.earliest, subject=slot.request.subject, flight=flight)
            with journey.under_way():
                view = ExchangeView(session.home[session.cache_name], lambda: slot.generation == generation)
                shadow = self._ra_shadow(view)
                shadow.__dict__["_build_telemetry_context"] = self._ra_telemetry(shadow, slot)
                slot.authorities = self._ra_authorities
                result = self._ra_try_regions(ask, shadow, journey) if regional else ask(shadow)
            token = session.token_from(result, view.response, journey, extras=extras) if result else None
            return Outcome(token, result, owner=_home_account_id(view.response) if extras else None)

        return exchange

    def _ra_telemetry(self, shadow: Any, slot: Slot) -> Callable[..., Any]:
        """Let MSAL tell the provider why it refreshes, which it can't know: its view of the cache is empty."""
        token, clock = slot.token, self._ra_session.engine.clock
        reason = msal.telemetry.AT_ABSENT
        if token is not None:
            aging = token.remaining(clock.wall(), clock.monotonic()) >= MSAL_MARGIN
            reason = msal.telemetry.AT_AGING if aging else msal.telemetry.AT_EXPIRED
        build = _original(shadow, "_build_telemetry_context")

        def telemetry(*args: Any, refresh_reason: Any = None, **kwargs: Any) -> Any:
            told = reason if refresh_reason == msal.telemetry.AT_ABSENT else refresh_reason
            return build(*args, refresh_reason=told, **kwargs)

        return telemetry

    def _ra_try_regions(self, ask: Callable[[Any], Any], shadow: Any, journey: Journey) -> Any:
        """Ask the regional endpoint first and the global one when that fails (G12)."""
        if shadow.__dict__.get("_regional_client") is None:
            return ask(shadow)
        journey.attempts = 1
        try:
            return ask(shadow)
        except ProviderUnavailable:
            shadow._regional_client = None
            journey.attempts = None
            return ask(shadow)

    def _ra_once(self, subject: object, ask: Callable[[Any], Any]) -> Plan:
        """Plan an exchange whose result is nobody else's."""
        session = self._ra_session

        def asked() -> Any:
            view = ExchangeView(session.home[session.cache_name], lambda: True)
            return ask(self._ra_shadow(view))

        return session.once(self._ra_authorities, self.client_id, fingerprint(str(subject)), asked)

    def _ra_silent(
        self,
        scopes: Any,
        account: Any,
        authority: Any,
        force_refresh: Any,
        claims_challenge: str | None,
        forwarded_client_claims: str | None,
        auth_scheme: Any,
        kwargs: dict[str, Any],
        *,
        silent: bool,
    ) -> Plan | None:
        """Plan the silent flow: held token, else refresh token (G4)."""
        if not account:
            return None
        wanted = check_scopes(scopes)
        options = dict(kwargs, claims_challenge=claims_challenge, forwarded_client_claims=forwarded_client_claims)
        if authority is not None:
            options["authority"] = authority

        def ask(app: Any) -> Any:
            return _original(app, "acquire_token_silent_with_error")(
                list(scopes), account, force_refresh=bool(force_refresh), **copy.deepcopy(options)
            )

        if auth_scheme is not None or self.__dict__.get("_enable_broker") or _from_cloud_shell(account):
            options["auth_scheme"] = auth_scheme
            kept = bool(force_refresh)
            plan = self._ra_once(account.get("home_account_id"), lambda app: ask(self._ra_with_real_cache(app, kept)))
            finish = plan.finish
            plan.finish = lambda served: _none_for_error(finish(served)) if silent else finish(served)
            return plan
        subject = account.get("home_account_id")
        variant = variant_of(kwargs, client_claims=forwarded_client_claims)
        request = TokenRequest(self._ra_authority, self.client_id, "silent", wanted, subject, variant)
        plain = not (kwargs or forwarded_client_claims)
        return self._ra_plan(
            request,
            ask,
            signature=(subject, tuple(scopes)) if plain else None,
            claims=claims_challenge,
            force=bool(force_refresh),
            silent=silent,
        )

    def _ra_plan(
        self,
        request: TokenRequest,
        ask: Callable[[Any], Any],
        *,
        signature: Any = None,
        claims: str | None = None,
        force: bool = False,
        silent: bool = False,
        repeatable: bool = True,
        readable: bool = True,
        extras: bool = False,
        regional: bool = False,
    ) -> Plan:
        """Plan a call whose token is held: by our memory, and by MSAL's cache where that can be read."""
        session = self._ra_session
        if claims:
            self._ra_drop_challenged(request)
        return session.plan(
            request,
            self._ra_authorities,
            lambda slot: self._ra_exchange(ask, slot, extras=extras, regional=regional),
            repeatable=repeatable and not (claims or force),
            read=(lambda cache: self._ra_read(cache, request)) if readable else None,
            signature=None if claims or force else signature,
            claims=claims,
            force=force,
            silent=silent,
        )

    def _ra_query(self, request: TokenRequest) -> dict[str, Any]:
        """Say how MSAL looks the token up in its cache."""
        authority = self._ra_origin.authority
        extended, _, key_id = request.variant.partition(" ")
        return {
            "client_id": self.client_id,
            "environment": authority.instance,
            "realm": authority.tenant,
            "home_account_id": request.subject,
            **({"ext_cache_key": extended} if extended else {}),
            **({"key_id": key_id} if key_id else {}),
        }

    def _ra_read(self, cache: Any, request: TokenRequest) -> Token | None:
        """Look into MSAL's cache, which another object or an earlier run may have filled."""
        if not self._ra_bound:
            return None
        clock, due = self._ra_session.engine.clock, self._ra_session.due
        query = self._ra_query(request)
        # A cache that another library filled may know the authority by another of its names.
        for environment in (query["environment"], *aliases_of(query["environment"])):
            query["environment"] = environment
            found = read(cache, scopes=request.scopes, query=query, wall=clock.wall(), now=clock.monotonic(), due=due)
            if found is not None:
                return found
        return None

    def _ra_drop_challenged(self, request: TokenRequest) -> None:
        """Let nobody be served the token that an API has just refused (G17)."""
        session = self._ra_session
        cache = session.look_at_cache()
        if self._ra_bound:
            query = self._ra_query(request)
            for entry in list(cache.search("AccessToken", target=list(request.scopes), query=query, now=0)):
                cache.remove_at(entry)
        slot = session.memory.find(request)
        if slot is not None and slot.token is not None:
            session.memory.drop_token(slot, slot.token, "claims challenge")

    def _ra_with_real_cache(self, shadow: Any, hidden: bool) -> Any:
        if not hidden:
            shadow.__dict__["token_cache"] = self._ra_session.home[self._ra_session.cache_name]
        return shadow

    def acquire_token_silent(
        self,
        scopes: list[str],
        account: Any,
        authority: str | None = None,
        force_refresh: bool | None = False,
        claims_challenge: str | None = None,
        forwarded_client_claims: str | None = None,
        auth_scheme: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any] | None:
        """Get a user's token without interaction, as MSAL's method of this name; a held one is served at once."""
        if not (authority or force_refresh or claims_challenge or forwarded_client_claims or auth_scheme or kwargs):
            answer = self._ra_hit_for(scopes, account)
            if answer is not None:
                return answer
        plan = self._ra_silent(
            scopes, account, authority, force_refresh, claims_challenge, forwarded_client_claims, auth_scheme, kwargs,
            silent=True,
        )  # fmt: skip
        return None if plan is None else plan.run()

    def acquire_token_silent_with_error(
        self,
        scopes: list[str],
        account: Any,
        authority: str | None = None,
        force_refresh: bool | None = False,
        claims_challenge: str | None = None,
        forwarded_client_claims: str | None = None,
        auth_scheme: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any] | None:
        """Get a user's token without interaction, as MSAL's method of this name, with the error dict of a denial."""
        if not (authority or force_refresh or claims_challenge or forwarded_client_claims or auth_scheme or kwargs):
            answer = self._ra_hit_for(scopes, account)
            if answer is not None:
                return answer
        plan = self._ra_silent(
            scopes, account, authority, force_refresh, claims_challenge, forwarded_client_claims, auth_scheme, kwargs,
            silent=False,
        )  # fmt: skip
        return None if plan is None else plan.run()

    def _ra_hit_for(self, scopes: Any, account: Any) -> dict[str, Any] | None:
        """Answer from memory, if nothing but the time needs a look."""
        if scopes.__class__ is not list or not isinstance(account, dict):
            return None
        find, monotonic, wall, home = self._ra_fast
        try:
            hit: Hit | None = find((account.get("home_account_id"), tuple(scopes)))
        except TypeError:
            return None
        if hit is not None:
            now = monotonic()
            if now < hit.due_at and wall() < hit.due_on and home["token_cache"] is hit.cache:
                answer = hit.answer.copy()
                answer["expires_in"] = int(hit.expires_at - now)
                return answer
        return None

    def get_accounts(self, username: str | None = None) -> list[dict[str, Any]]:
        """List the accounts in the cache, as MSAL's method of this name; by user name at a cost that doesn't grow."""
        session = self._ra_session
        if username:
            entries = session.accounts(username.lower())
            if entries:
                shadow = object.__new__(self._ra_kind)
                shadow.__dict__["token_cache"] = _Entries(entries)
                found: list[dict[str, Any]] = _original(shadow, "_find_msal_accounts")(
                    environment=self._ra_origin.authority.instance
                )
                if found:
                    return found
        self._ra_bind()
        accounts: list[dict[str, Any]] = _original(self, "get_accounts")(username=username)
        return accounts

    def remove_account(self, account: Any) -> None:
        """Sign a user out, as MSAL's method of this name, in our memory at once too."""
        self._ra_bind()
        self._ra_session.memory.drop_subject(account.get("home_account_id"), "the application removed the account")
        _original(self, "remove_account")(account)
        self._ra_session.memory.drop_subject(account.get("home_account_id"), "the application removed the account")

    def _ra_by_auth_code_flow(
        self, auth_code_flow: dict[str, Any], auth_response: dict[str, Any], scopes: Any = None, **kwargs: Any
    ) -> Plan:
        if scopes is not None:
            check_scopes(scopes, empty=True)
        # MSAL takes the claims challenge out of what it is given: a second try must find it.
        flow = copy.deepcopy(auth_code_flow)
        return self._ra_once(
            flow.get("state"),
            lambda app: _original(app, "acquire_token_by_auth_code_flow")(flow, auth_response, scopes, **kwargs),
        )

    def acquire_token_by_auth_code_flow(
        self, auth_code_flow: dict[str, Any], auth_response: dict[str, Any], scopes: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Redeem an authorization code, as MSAL's method of this name; it is never sent twice by itself."""
        result: dict[str, Any] = self._ra_by_auth_code_flow(auth_code_flow, auth_response, scopes, **kwargs).run()
        return result

    def _ra_by_authorization_code(self, code: str, scopes: Any, *args: Any, **kwargs: Any) -> Plan:
        check_scopes(scopes, empty=True)
        return self._ra_once(
            code, lambda app: _original(app, "acquire_token_by_authorization_code")(code, scopes, *args, **kwargs)
        )

    def acquire_token_by_authorization_code(
        self, code: str, scopes: list[str], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Redeem an authorization code, as MSAL's method of this name; it is never sent twice by itself."""
        result: dict[str, Any] = self._ra_by_authorization_code(code, scopes, *args, **kwargs).run()
        return result

    def _ra_by_refresh_token(self, refresh_token: str, scopes: Any, **kwargs: Any) -> Plan:
        check_scopes(scopes, empty=True)
        return self._ra_once(
            refresh_token,
            lambda app: _original(app, "acquire_token_by_refresh_token")(refresh_token, scopes, **kwargs),
        )

    def acquire_token_by_refresh_token(self, refresh_token: str, scopes: list[str], **kwargs: Any) -> dict[str, Any]:
        """Bring a refresh token from elsewhere into the cache, as MSAL's method of this name."""
        result: dict[str, Any] = self._ra_by_refresh_token(refresh_token, scopes, **kwargs).run()
        return result

    def _ra_by_username_password(self, username: str, password: str, scopes: Any, *args: Any, **kwargs: Any) -> Plan:
        check_scopes(scopes, empty=True)
        return self._ra_once(
            username,
            lambda app: _original(app, "acquire_token_by_username_password")(
                username, password, scopes, *args, **kwargs
            ),
        )

    def acquire_token_by_username_password(
        self, username: str, password: str, scopes: list[str], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Sign in with a password, as MSAL's method of this name; a password is never sent twice by itself (G6)."""
        result: dict[str, Any] = self._ra_by_username_password(username, password, scopes, *args, **kwargs).run()
        return result

    def _ra_keep_fresh(self, plan: Plan) -> None:
        """Pin the token of a plan, which the caller need not wait for."""
        slot = plan.slot
        if slot is None or slot.renew is None:
            raise ConfigurationError("keep_fresh takes a token that can be had again without anybody calling")
        if plan.load is not None:
            plan.load()
        plan.acquisition.close()
        refresh.keep_fresh(self._ra_session.engine, slot)


#: The living ones, for a fork.
_applications: weakref.WeakSet[ResilientApplication] = weakref.WeakSet()


def applications() -> list[ResilientApplication]:
    """List the living applications of this process."""
    return list(_applications)


class _Entries:
    """A cache that holds some entries, for MSAL to tell as accounts."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self._entries = entries

    def search(self, _credential_type: str, *, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        return (e for e in self._entries if e.get("environment") == query.get("environment"))


def _original(app: Any, name: str) -> Callable[..., Any]:
    """Find MSAL's own method, past ours."""
    for kind in type(app).__mro__:
        if kind.__module__.partition(".")[0] == "msal" and name in kind.__dict__:
            method: Callable[..., Any] = kind.__dict__[name].__get__(app)
            return method
    raise AttributeError(name)


def variant_of(kwargs: dict[str, Any], **extra: str | None) -> str:
    """Tell apart calls that MSAL's cache tells apart, by what they send beside the usual: hashes, no secrets."""
    given = kwargs.get("data")
    data = {**(given if isinstance(given, dict) else {}), **{k: v for k, v in extra.items() if v is not None}}
    if not data:
        return ""
    return f"{_compute_ext_cache_key(data)} {data.get('key_id') or ''}".rstrip()


def _none_for_error(result: Any) -> Any:
    return result if result and "error" not in result else None


def _from_cloud_shell(account: Any) -> bool:
    return bool(account.get("authority_type") == "CLOUDSHELL")


def _home_account_id(response: dict[str, Any]) -> str | None:
    """Tell whose tokens an answer holds, as MSAL names it in its cache."""
    import base64
    import json

    text = response.get("client_info")
    try:
        told = json.loads(base64.urlsafe_b64decode(f"{text}===")) if text else {}
        return f"{told['uid']}.{told['utid']}" if "uid" in told and "utid" in told else None
    except (ValueError, TypeError):
        return None


def throttled(transport: Transport, http_cache: Any, seconds: int) -> Any:
    """Put MSAL's own throttle in front of the transport, as its constructor would."""
    return ThrottledHttpClient(transport, http_cache=http_cache, default_throttle_time=seconds)


def authority_of(arguments: dict[str, Any]) -> str:
    """Tell the origin of the authority that an application was given, or what is wrong with it."""
    oidc = arguments.get("oidc_authority")
    name = "oidc_authority" if oidc else "authority"
    authority = str(oidc or arguments.get("authority") or "https://login.microsoftonline.com/common/")
    example = "https://login.microsoftonline.com/<tenant>"
    try:
        parts = urlsplit(authority)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None:
        raise ConfigurationError(f"{name} must be a URL such as {example}, not {authority!r}")
    if parts.scheme != "https":
        raise ConfigurationError(f"{name} must start with https://, not {parts.scheme}://: write {example}")
    if not oidc and not parts.path.strip("/") and not host.endswith(".ciamlogin.com"):
        raise ConfigurationError(f"{name} must name a tenant: {authority.rstrip('/')}/<tenant>")
    return origin_of(authority)
