"""Where a credential's tokens come from: an MSAL application, a managed identity, any other credential, a function."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msal

from .._flow.memory import Exchange, Slot
from .._flow.single_flight import Flight, Outcome
from .._policy.failure import Purpose
from ..errors import AttemptTimeout, ConfigurationError, ProviderUnavailable, Throttled
from ..settings import Settings
from ..token import Token, TokenRequest
from .application import ResilientApplication
from .managed_identity import ManagedIdentityClient
from .msal_app import wrap
from .session import Plan, Session
from .siblings import Siblings
from .token_like import token_of
from .verdicts import denial_in, failure_in

__all__ = ["Source", "Wanted", "source_for"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Say which token somebody wants of a credential."""

    scopes: tuple[str, ...]
    claims: str | None = None
    tenant_id: str | None = None
    enable_cae: bool = False


class Source(Protocol):
    """Plan how a token is had from one place."""

    name: str
    session: Session

    def prepare(self, wanted: Wanted) -> Callable[[], object] | None:
        """Tell what must be done before a plan can be made, and may take a moment; None for nothing."""
        ...

    def plan(self, wanted: Wanted) -> Plan:
        """Plan it; nothing is asked of anybody yet."""
        ...

    def close(self) -> None:
        """Let go of what was made for this source."""
        ...


class _Application:
    """Tokens of an MSAL application: its own, or a signed-in user's."""

    def __init__(self, app: Any, account: Mapping[str, Any] | None, tenants: frozenset[str], *, ours: bool) -> None:
        if account is None and not isinstance(app, msal.ConfidentialClientApplication):
            raise ConfigurationError(
                f"account must say whose tokens a {type(app).__name__} is to give: one of its get_accounts()"
            )
        self.name = f"{_msal_name(app)} {app.client_id}"
        self._app = app
        self._account = account
        self._ours = ours
        self._siblings = Siblings(app, tenants, shared_cache=account is not None)

    @property
    def session(self) -> Session:
        session: Session = self._app._ra_session
        return session

    def prepare(self, wanted: Wanted) -> Callable[[], object] | None:
        return self._siblings.missing(wanted.tenant_id, cae=wanted.enable_cae)

    def plan(self, wanted: Wanted) -> Plan:
        app = self._siblings.find(wanted.tenant_id, cae=wanted.enable_cae)
        scopes = list(wanted.scopes)
        if self._account is None:
            plan: Plan = app._ra_for_client(scopes, wanted.claims, None, None, {})
            return plan
        plan = app._ra_silent(scopes, self._account, None, False, wanted.claims, None, None, {}, silent=False)
        if app is not self._app:
            # The cache is the other application's too, for its refresh token: the access tokens there are of another kind.
            plan.load = None
        return plan

    def close(self) -> None:
        self._siblings.close()
        if self._ours:
            self._app._ra_session.close()


class _ManagedIdentity:
    """Tokens of a managed identity: one resource each, of its own tenant."""

    def __init__(self, app: ManagedIdentityClient, *, ours: bool) -> None:
        self.name = "ManagedIdentityClient"
        self.session = app._ra_session
        self._app = app
        self._ours = ours

    def prepare(self, wanted: Wanted) -> None:
        return None

    def plan(self, wanted: Wanted) -> Plan:
        if len(wanted.scopes) != 1:
            raise ConfigurationError(
                f"scopes must be one scope for a managed identity, not {len(wanted.scopes)}: ask for each by itself"
            )
        return self._app._ra_for_client(
            resource=wanted.scopes[0].removesuffix("/.default"), claims_challenge=wanted.claims
        )

    def close(self) -> None:
        if self._ours:
            self._app._ra_session.close()


_numbers = itertools.count(1)


class _Anything:
    """Tokens of somebody else's credential, or of a function."""

    def __init__(self, credential: Any, settings: Settings | None, *, asynchronous: bool) -> None:
        ask = _way_to_ask(credential)
        self._coroutine = inspect.iscoroutinefunction(ask.method)
        if self._coroutine and not asynchronous:
            raise ConfigurationError(
                f"sources must not hold {ask.name}, whose tokens are awaited: use resilient_auth.aio.ResilientCredential"
            )
        # Two of a kind may ask different providers: each has a breaker of its own.
        self.name = f"{ask.name}-{next(_numbers)}"
        self.session = Session(settings, {"cache": None}, "cache")
        self._credential = credential
        self._ask = ask
        #: The caller's event loop: what belongs to a loop is awaited there.
        self.loop: asyncio.AbstractEventLoop | None = None

    def prepare(self, wanted: Wanted) -> None:
        return None

    def plan(self, wanted: Wanted) -> Plan:
        variant = json.dumps([wanted.tenant_id, wanted.enable_cae]) if wanted.tenant_id or wanted.enable_cae else ""
        request = TokenRequest(self.name, self.name, "credential", wanted.scopes, None, variant)
        if wanted.claims:
            slot = self.session.memory.find(request)
            if slot is not None and slot.token is not None:
                self.session.memory.drop_token(slot, slot.token, "claims challenge")
        return self.session.plan(
            request,
            (self.name,),
            lambda slot: self._exchange(slot, wanted),
            repeatable=not wanted.claims,
            read=None,
            claims=wanted.claims,
        )

    def _exchange(self, slot: Slot, wanted: Wanted) -> Exchange:
        engine = self.session.engine

        def exchange(flight: Flight) -> Outcome:
            too_early = flight.earliest - engine.clock.monotonic()
            if too_early > 0:
                engine.pause(min(too_early, max(0.0, flight.deadline - engine.clock.monotonic())))
            engine.check_cooldown(self.name, self.name, None)
            with engine.breaker(self.name, Purpose.TOKEN).admit() as permit:
                # It can't be interrupted: who asks later must not wait for it too.
                alarm = engine.timers.call_at(flight.deadline, lambda: permit.failure("attempt_timeout"))
                sent_on, sent_at = engine.clock.wall(), engine.clock.monotonic()
                failure: ProviderUnavailable | None = None
                denial: dict[str, Any] | None = None
                try:
                    answer = self._answer(wanted, flight)
                    token = self._token(answer, sent_on, sent_at)
                except Exception as error:
                    failure = failure_in(error, self.name, engine.clock.wall())
                    denial = None if failure is not None else denial_in(error)
                    if failure is None and denial is None:
                        raise
                finally:
                    alarm.cancel()
                if failure is not None:
                    # Raised here and not there: what a credential raises may hold its request, and so its secrets.
                    if isinstance(failure, Throttled):
                        permit.none()
                        if failure.retry_after:
                            engine.cool_down(self.name, Purpose.TOKEN, self.name, None, failure.retry_after)
                    else:
                        permit.failure(failure.code)
                    raise failure
                if denial is not None:
                    return Outcome(result=denial)
                if token is None:  # MSAL's way of saying no
                    return Outcome(result=dict(answer))
                permit.success()
                return Outcome(token, {"access_token": token.secret})

        return exchange

    def _answer(self, wanted: Wanted, flight: Flight) -> Any:
        """Ask, on this worker or on the caller's loop."""
        if self._coroutine:
            return self._await(lambda: self._ask(wanted), flight)
        answer = self._ask(wanted)
        if inspect.isawaitable(answer):
            awaited = answer
            return self._await(lambda: awaited, flight)
        return answer

    def _await(self, ask: Callable[[], Awaitable[Any]], flight: Flight) -> Any:
        loop, clock = self.loop, self.session.engine.clock
        if loop is None or not loop.is_running():
            raise AttemptTimeout(f"{self.name} needs an event loop, and the last one ended", authority=self.name)

        async def run() -> Any:
            return await ask()

        coming = asyncio.run_coroutine_threadsafe(run(), loop)
        try:
            return coming.result(max(0.0, flight.deadline - clock.monotonic()))
        except TimeoutError:
            if coming.done():  # it was its own
                raise
            coming.cancel()
            raise AttemptTimeout(f"{self.name} didn't answer in time", authority=self.name) from None
        except concurrent.futures.CancelledError:
            raise AttemptTimeout(f"{self.name} was cancelled with its event loop", authority=self.name) from None

    def _token(self, answer: Any, sent_on: float, sent_at: float) -> Token | None:
        if isinstance(answer, Mapping) and "access_token" not in answer and "error" in answer:
            return None
        found = token_of(answer, self.name, sent_on)
        return Token(
            secret=found.secret,
            token_type=found.token_type,
            obtained_on=sent_on,
            obtained_at=sent_at,
            life=found.life,
            due_after=self.session.due(found.life, found.refresh_in),
            refresh_on=None if found.refresh_in is None else int(sent_on + found.refresh_in),
        )

    def close(self) -> None:
        self.session.close()

    @property
    def credential(self) -> Any:
        """What was given: it is closed with the credential around it, as in azure-identity's chains."""
        return self._credential


class _Ask:
    """Call a credential or a function by the richest of the ways that it knows."""

    def __init__(self, name: str, method: Callable[..., Any], way: str) -> None:
        self.name = name
        self.method = method
        self._way = way
        self._takes = _keywords(method) if way == "function" else None

    def __call__(self, wanted: Wanted) -> Any:
        given: dict[str, Any] = {"claims": wanted.claims, "tenant_id": wanted.tenant_id}
        if wanted.enable_cae:
            given["enable_cae"] = True
        given = {name: value for name, value in given.items() if value is not None}
        if self._way == "get_token_info":
            return self.method(*wanted.scopes, options=given) if given else self.method(*wanted.scopes)
        if self._way == "get_token":
            return self.method(*wanted.scopes, **given)
        taken = {n: v for n, v in given.items() if self._takes is None or n in self._takes}
        return self.method(wanted.scopes, **taken)


def _way_to_ask(source: Any) -> _Ask:
    for way in ("get_token_info", "get_token"):
        method = getattr(source, way, None)
        if callable(method) and not isinstance(source, type):
            return _Ask(type(source).__name__, method, way)
    name = getattr(source, "__name__", None) or type(source).__name__
    if inspect.isfunction(source) or inspect.ismethod(source) or inspect.isbuiltin(source):
        return _Ask(name.strip("<>"), source, "function")
    called = source.__call__ if inspect.iscoroutinefunction(getattr(source, "__call__", None)) else source  # noqa: B004
    return _Ask(name, called, "function")


def _keywords(function: Callable[..., Any]) -> frozenset[str] | None:
    """Tell which keywords a function takes; None for any."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return frozenset()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD))


def _msal_name(app: Any) -> str:
    return (
        type(app).__name__.removeprefix("_Wrapped").replace("Client", "ClientApplication", 1)
        if type(app).__name__.startswith("_Wrapped")
        else type(app).__name__
    )


def source_for(
    source: Any,
    *,
    position: int,
    account: Mapping[str, Any] | None,
    settings: Settings | None,
    tenants: frozenset[str],
    asynchronous: bool,
) -> Source:
    """Make a source of what the owner gave.

    Args:
        source: The owner's object.
        position: Which one it is; for messages.
        account: Whose tokens an application is to give; None for its own.
        settings: For what isn't resilient already.
        tenants: Other tenants that may be asked for.
        asynchronous: Whether the callers are asyncio tasks.

    Raises:
        ConfigurationError: It is nothing that could give a token.
    """
    inner = source.__dict__.get("_app") if type(source).__module__ == "resilient_auth.aio" else None
    app = source if inner is None else inner
    if isinstance(app, (msal.ClientApplication, msal.ManagedIdentityClient)):
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
    return _Anything(source, settings, asynchronous=asynchronous)
