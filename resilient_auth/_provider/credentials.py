"""What both faces of a credential share: which source is asked, what is held ready, and what goes wrong.

one source        ask it ─┬─ token ─▶ serve
                          ├─ denial ─▶ TokenDenied
                          └─ failure ─▶ ProviderUnavailable
several, in order ask the first that isn't known to fail ─┬─ token or denial ─▶ as above
                                                          └─ failure ─▶ the next one
                  a source that failed is asked behind, and comes first again as soon as it has given a token
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

from .._flow import refresh
from .._flow.acquire import Served, acquire, patience_of, wait_at_most
from .._flow.memory import Slot
from .._policy.checks import require_number
from ..errors import AcquisitionTimeout, Closed, ConfigurationError, ProviderUnavailable, TokenDenied
from ..events import SourceSwitched, emit
from ..settings import Settings
from ..token import Token
from .azure_shapes import SIGN_IN_AGAIN, AccessToken, AccessTokenInfo, for_azure
from .foreign import AnyCredential
from .session import Plan, check_scopes
from .sources import Source, Wanted, source_for
from .transport import Journey, once_then_elsewhere

__all__ = ["Answer", "CredentialCore", "Step", "Steps"]

#: Seconds after which a token of another source than the first is looked at again: the first may have recovered.
_LOOK_AGAIN = 1.0
_MOST_READY = 4096
_TENANT = re.compile(r"[A-Za-z0-9.-]+")
_EXAMPLE = '"https://vault.azure.net/.default"'


class Answer:
    """A token in both of azure-core's shapes, made once, with all that tells whether it may still be served."""

    #: Set where it may be served again without asking anybody.
    slot: Slot
    home: Mapping[str, Any]
    cache_name: str
    cache: Any
    monotonic: Callable[[], float]
    wall: Callable[[], float]
    due_on: float
    due_at: float

    __slots__ = (
        "access",
        "cache",
        "cache_name",
        "due_at",
        "due_on",
        "home",
        "info",
        "monotonic",
        "slot",
        "token",
        "wall",
    )

    def __init__(self, token: Token) -> None:
        expires_on = int(token.expires_on)
        self.token = token
        self.access = AccessToken(token.secret, expires_on)
        # Whoever asks again from then on finds the refresh begun, or done.
        refresh_on = min(math.ceil(token.obtained_on + token.due_after), expires_on)
        self.info = AccessTokenInfo(token.secret, expires_on, token_type=token.token_type, refresh_on=refresh_on)


@dataclass(frozen=True, slots=True)
class Step:
    """What a face is to do next: something that may block for a moment, or a plan."""

    call: Callable[[], object] | None = None
    plan: Plan | None = None
    #: Seconds for which to wait for it, where there is another source to ask.
    patience: float | None = None

    def run(self) -> Served | None:
        """Do it on this thread."""
        if self.plan is None:
            assert self.call is not None  # noqa: S101 - it is one or the other
            self.call()
            return None
        if self.plan.load is not None:
            self.plan.load()
        return acquire(self.plan.acquisition)

    def limits(self) -> AbstractContextManager[object]:
        """Give the plan no more time, and no more attempts, than another source leaves it."""
        if self.patience is None:
            return nullcontext()
        both = ExitStack()
        both.enter_context(wait_at_most(self.patience))
        both.enter_context(once_then_elsewhere())
        return both


Steps = Generator[Step, Served | None, Answer]


class CredentialCore:
    """Decide how a credential answers; its faces wait.

    Args:
        sources: In order of preference.
        account: Whose tokens MSAL applications are to give.
        resilience: For the sources that aren't resilient already.
        additionally_allowed_tenants: Which other tenants may be asked for.
        failover_after: Seconds.
        asynchronous: Whether callers are asyncio tasks.

    Raises:
        ConfigurationError: An argument is wrong.
    """

    def __init__(
        self,
        sources: tuple[Any, ...],
        *,
        account: Mapping[str, Any] | None,
        resilience: Settings | None,
        additionally_allowed_tenants: Iterable[str],
        failover_after: float,
        asynchronous: bool,
    ) -> None:
        if not sources:
            raise ConfigurationError(
                "sources must not be empty: give an application of MSAL's, a managed identity client, a credential or "
                "a function"
            )
        if account is not None and not (isinstance(account, Mapping) and account.get("home_account_id")):
            raise ConfigurationError(
                "account must be one that get_accounts() returned, or None for the application's own"
            )
        if resilience is not None and not isinstance(resilience, Settings):
            raise ConfigurationError(f"resilience must be Settings(...), not {type(resilience).__name__}")
        require_number("failover_after", failover_after, low=0.01, high=3600.0)
        tenants = _check_tenants(additionally_allowed_tenants)
        self._failover_after = failover_after
        self._sources: list[Source] = [
            source_for(
                source,
                position=position,
                account=account,
                settings=resilience,
                tenants=tenants,
                asynchronous=asynchronous,
            )
            for position, source in enumerate(sources)
        ]
        #: What is answered without asking anybody, by scopes, or by scopes and options.
        self.ready: dict[Any, Answer] = {}
        #: Which source serves what isn't served by the first.
        self._serving: dict[Wanted, int] = {}
        self.closed = False
        self._renew()
        _cores.add(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def find(self, key: Any) -> Answer | None:
        """Find an answer that may be served as it is."""
        try:
            answer = self.ready.get(key)
        except TypeError:  # what isn't a scope: told where it is looked at
            return None
        if (
            answer is not None
            and answer.slot.token is answer.token
            and answer.monotonic() < answer.due_at
            and answer.wall() < answer.due_on
            and answer.home[answer.cache_name] is answer.cache
        ):
            return answer
        return None

    def steps(
        self, scopes: tuple[str, ...], claims: str | None, tenant_id: str | None, enable_cae: bool, loop: Any = None
    ) -> Steps:
        """Take one call through; ends with the answer.

        Raises:
            ConfigurationError: An argument is wrong; raised before anything is asked of anybody.
            ProviderUnavailable: No source that works could be found.
            TokenDenied: A source works and said no.
        """
        if self.closed:
            raise Closed("this credential was closed: make a new one, or close it later")
        wanted = _check(scopes, claims, tenant_id, enable_cae)
        if not claims:
            answer = self.find(_key(wanted))
            if answer is not None:
                return answer
        for source in self._sources:
            if isinstance(source, AnyCredential):
                source.loop = loop
        try:
            return (yield from self._ask(wanted))
        except (ProviderUnavailable, TokenDenied) as error:
            raise for_azure(error) from None

    def steps_with(self, scopes: tuple[str, ...], options: Any, loop: Any = None) -> Steps:
        """Take one call through whose options come as a mapping."""
        if options is not None and not isinstance(options, Mapping):
            raise ConfigurationError(f"options must be a mapping, not {type(options).__name__}")
        told = options or {}
        enable_cae = told.get("enable_cae")
        cae = False if enable_cae is None else enable_cae
        return self.steps(scopes, told.get("claims"), told.get("tenant_id"), cae, loop)

    def _ask(self, wanted: Wanted) -> Steps:
        failures: list[tuple[str, ProviderUnavailable]] = []
        last = len(self._sources) - 1
        for index, source in enumerate(self._sources):
            prepare = source.prepare(wanted)
            if prepare is not None:
                yield Step(call=prepare)
            plan = source.plan(wanted)
            if index < last:
                error = _known_to_fail(source, plan, wanted)
                if error is not None:
                    plan.acquisition.close()
                    failures.append((source.name, error))
                    continue
            patience = None if index == last else self._patience(source)
            try:
                served = yield Step(plan=plan, patience=patience)
            except ProviderUnavailable as error:
                if index < last:
                    _doubt(source, plan)
                failures.append((source.name, error))
                continue
            assert served is not None  # noqa: S101 - a plan ends with one
            answer = self._answer(wanted, source, plan, served, first=index == 0)
            self._note(wanted, index, failures[0][1].code if failures else "recovered", source)
            return answer
        raise _worst(failures)

    def _patience(self, source: Source) -> float:
        # Half of what the caller has is left for the sources behind.
        return min(self._failover_after, patience_of(source.session.settings.wait) / 2)

    def _answer(self, wanted: Wanted, source: Source, plan: Plan, served: Served, *, first: bool) -> Answer:
        token, slot, session = served.token, plan.slot, source.session
        if token is None and isinstance(served.result, Mapping):
            # A broker's or a cloud shell's, which MSAL holds by itself.
            token = session.token_from(served.result, {}, Journey(0.0))
        if token is None:
            raise _denial(served.result)
        answer = Answer(token)
        cache = session.home[session.cache_name]
        if slot is None or served.reason is not None or not (session._watchable or cache is None):
            return answer
        clock = session.engine.clock
        answer.slot, answer.home, answer.cache_name, answer.cache = slot, session.home, session.cache_name, cache
        answer.monotonic, answer.wall = clock.monotonic, clock.wall
        answer.due_on = token.obtained_on + token.due_after
        answer.due_at = token.obtained_at + token.due_after
        if not first:
            answer.due_at = min(answer.due_at, clock.monotonic() + _LOOK_AGAIN)
        if slot.token is token and not self.closed:
            if len(self.ready) >= _MOST_READY:
                self.ready.clear()
            self.ready[_key(wanted)] = answer
        return answer

    def _note(self, wanted: Wanted, index: int, reason: str, source: Source) -> None:
        """Tell of a switch, once."""
        subject = Wanted(wanted.scopes, None, wanted.tenant_id, wanted.enable_cae)
        if self._serving.get(subject, 0) == index:
            return
        with self._lock:
            previous = self._serving.get(subject, 0)
            if previous == index:
                return
            if index:
                self._serving[subject] = index
            else:
                del self._serving[subject]
        emit(
            SourceSwitched(
                at=source.session.engine.clock.wall(),
                scopes=wanted.scopes,
                source=source.name,
                previous=self._sources[previous].name,
                reason=reason if index > previous else "recovered",
            )
        )

    def forget(self, token: str) -> None:
        """Forget a token that an API refused, in all sources, and leave its successor alone."""
        if not isinstance(token, str):
            raise ConfigurationError(f"token must be the string that was refused, not {type(token).__name__}")
        for source in self._sources:
            source.forget(token)

    def close(self) -> list[Any]:
        """Let go of what is held; tells which of the owner's credentials are to be closed too, as in a chain."""
        self.closed = True
        self.ready.clear()
        for source in self._sources:
            source.close()
        return [source.credential for source in self._sources if isinstance(source, AnyCredential)]

    def __repr__(self) -> str:
        return ", ".join(source.name for source in self._sources)


def _key(wanted: Wanted) -> Any:
    if wanted.tenant_id is None and not wanted.enable_cae:
        return wanted.scopes
    return wanted.scopes, wanted.tenant_id, wanted.enable_cae


def _known_to_fail(source: Source, plan: Plan, wanted: Wanted) -> ProviderUnavailable | None:
    """Tell why a source needn't be asked now; it goes on being asked behind."""
    slot, engine = plan.slot, source.session.engine
    if slot is None or wanted.claims or _valid(source, slot):
        return None
    now = engine.clock.monotonic()
    flight = refresh.under_way(engine, slot)
    if flight is not None and flight.doubted:
        slot.asked_at = now
        return flight.last_error or slot.last_error or _still_waiting(source)
    if slot.last_error is None or slot.renew is None:
        return None
    slot.asked_at = now
    error = slot.last_error
    refresh.behind(engine, slot, slot.renew)
    return error


def _valid(source: Source, slot: Slot) -> bool:
    clock = source.session.engine.clock
    token = slot.token
    return token is not None and token.remaining(clock.wall(), clock.monotonic()) > 0


def _doubt(source: Source, plan: Plan) -> None:
    """Have nobody else wait for an exchange that one has waited for in vain."""
    flight = None if plan.slot is None else refresh.under_way(source.session.engine, plan.slot)
    if flight is not None:
        flight.doubted = True


def _still_waiting(source: Source) -> ProviderUnavailable:
    return AcquisitionTimeout(f"{source.name} hasn't answered yet", authority=source.name)


def _worst(failures: list[tuple[str, ProviderUnavailable]]) -> ProviderUnavailable:
    """Choose the failure to tell: the last source's, which says when it makes sense to ask any of them again."""
    _, error = failures[-1]
    known = [f.retry_after for _, f in failures if f.retry_after is not None]
    error.retry_after = min(known, default=None)
    for name, other in failures[:-1]:
        error.add_note(f"{name} was asked before: {other.code}")
    return error


def _denial(result: Any) -> TokenDenied:
    if not isinstance(result, Mapping):
        return TokenDenied(SIGN_IN_AGAIN, "there is no token for this account, and none can be had: sign the user in")
    error = str(result.get("error") or "denied")
    return TokenDenied(error, str(result.get("error_description") or ""), claims=result.get("claims"))


def _check(scopes: tuple[Any, ...], claims: Any, tenant_id: Any, enable_cae: Any) -> Wanted:
    """Look at a call's arguments before anything is sent."""
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
    return Wanted(scopes, claims or None, tenant_id, enable_cae)


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


def _check_tenants(tenants: Iterable[str]) -> frozenset[str]:
    listed = () if isinstance(tenants, (str, bytes)) or not isinstance(tenants, Iterable) else tuple(tenants)
    if (not listed and tenants != []) and tenants not in ((), frozenset(), set()):
        raise ConfigurationError('additionally_allowed_tenants must be a list of tenants, or ["*"] for any')
    for tenant in listed:
        if not isinstance(tenant, str) or not (tenant == "*" or _TENANT.fullmatch(tenant)):
            raise ConfigurationError(
                f"additionally_allowed_tenants must hold tenants' ids or domain names, not {tenant!r}"
            )
    return frozenset(tenant.lower() for tenant in listed)


_cores: weakref.WeakSet[CredentialCore] = weakref.WeakSet()


def _after_fork() -> None:
    for core in _cores:
        core._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
