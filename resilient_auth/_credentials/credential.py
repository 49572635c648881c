"""What both faces of a credential share: which source is asked, what is held ready, and what goes wrong.

one source        ask it ─┬─ token ─▶ serve
                          ├─ denial ─▶ TokenDenied
                          └─ failure ─▶ ProviderUnavailable
several, in order ask the first that isn't known to fail ─┬─ token or denial ─▶ as above
                                                          └─ failure ─▶ the next one
                  a source that failed is asked in the background, and comes first again once it has given a token
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import cachetools

from .._engine.acquire import Served, patience_of, wait_at_most, wait_within
from .._engine.cache import CacheEntry
from .._engine.single_flight import Flights, Outcome, WaitFor
from .._engine.steps import Steps
from .._engine.threads import OnThread
from .._msal.plans import Plan
from .._msal.results import token_from
from .._policy.challenge import IN_VAIN_FOR, same_claims
from .._policy.checks import called, require, require_number
from .._policy.subject import SubjectOf, check_subject, subject_now
from .._process import forks
from .._process.living import LiveObjects
from .._wire.exchange_context import ExchangeContext, once_then_elsewhere
from ..errors import AcquisitionTimeout, Closed, ConfigurationError, ProviderUnavailable, TokenDenied
from ..events import SourceSwitched, emit
from ..settings import Settings
from ..token import Token
from .azure_errors import denial, for_azure
from .failover import doubt, known_failure, worst
from .request import CredentialRequest, allowed_tenants, key_for, wanted_by
from .sources import Source, source_for
from .third_party import AnyCredential

if TYPE_CHECKING:
    from .cached_answer import CachedAnswer

__all__ = ["Credential", "CredentialCore"]

#: Seconds after which a token of another source than the first is looked at again: the first may have recovered.
_LOOK_AGAIN = 1.0
_MOST_READY = 4096
_FAILOVER_AFTER = 2.0


class CredentialCore:
    """Decide how a credential answers; its faces wait."""

    def __init__(
        self,
        sources: list[Source],
        failover_after: float,
        prepare: Callable[[Token, CacheEntry | None], CachedAnswer],
        subject: SubjectOf | None = None,
    ) -> None:
        self._sources = sources
        self._subject = subject
        self._failover_after = failover_after
        self._prepare = prepare
        #: What is answered without asking anybody, by `CredentialRequest.key`. Readers take no lock.
        self.ready: dict[Any, CachedAnswer] = {}
        #: Which source serves what isn't served by the first.
        self._serving: dict[Hashable, int] = {}
        #: What a claims challenge has brought, and the monotonic time until which nobody is asked for the same again.
        self._challenged: cachetools.LRUCache[Any, tuple[CachedAnswer, float]] = cachetools.LRUCache(1024)
        #: The calls that ask with a challenge's claims.
        self._challenges = Flights(sources[0].session.engine.clock)
        self._closed = False
        self._lock = threading.Lock()
        cores.add(self)

    def after_fork(self) -> None:
        """Start with locks of one's own in a forked child, in which none of the parent's calls are."""
        self._lock, self._challenged = threading.Lock(), forks.rebuilt(self._challenged)
        self._challenges = Flights(self._sources[0].session.engine.clock)
        for source in self._sources:
            source.after_fork()

    def find(self, scopes: Any) -> CachedAnswer | None:
        """Find an answer that may be served as it is, to who wants nothing but scopes."""
        try:
            answer = self.ready.get(scopes)
        except TypeError:  # what isn't a scope: told where it is looked at
            return None
        return answer if answer is not None and answer.stands() else None

    def steps(
        self, scopes: tuple[str, ...], claims: str | None, tenant_id: str | None, enable_cae: bool
    ) -> Steps[CachedAnswer]:
        """Take one call through; ends with the answer.

        Raises:
            ConfigurationError: An argument is wrong; raised before anything is asked of anybody.
            ProviderUnavailable: No source that works could be found.
            TokenDenied: A source works and said no.
        """
        if self._closed:
            raise Closed("this credential was closed: make a new one, or close it later")
        forks.notice()
        subject = None if self._subject is None else subject_now(self._subject)
        if subject is not None and not claims:
            answer = self.find(key_for(subject, scopes, tenant_id, enable_cae=enable_cae))
            if answer is not None:
                return answer
        try:
            wanted = wanted_by(scopes, claims, tenant_id, enable_cae, subject)
            if wanted.claims:
                return (yield from self._ask_once(wanted, same_claims(wanted.claims)))
            return self.find(wanted.key) or (yield from self._ask(wanted))
        except (ProviderUnavailable, TokenDenied) as error:
            raise for_azure(error) from None
        except ConfigurationError as error:
            if tenant_id is None:
                raise
            # An API's challenge may name any tenant; who calls that API knows azure-core's errors.
            raise for_azure(error) from None

    def _ask_once(self, wanted: CredentialRequest, claims: str) -> Steps[CachedAnswer]:
        """Ask with a challenge's claims, once for all who were challenged with the same ones.

        Each of them drops what is held: who came a moment later would drop what the first one has got.
        """
        session = self._sources[0].session
        clock, patience = session.engine.clock, patience_of(session.settings.wait)
        ends, waited = clock.monotonic() + patience, False
        while True:
            answer = self._brought_by(wanted, claims)
            if answer is not None:
                return answer
            key = ("challenge", id(self), wanted.key, claims)
            left = max(0.001, ends - clock.monotonic())
            flight, mine = self._challenges.join(key, clock.monotonic() + left)
            if not mine:
                waited = True
                outcome = yield WaitFor(flight, left)
                if outcome is None:
                    raise AcquisitionTimeout(f"deadline of {patience:g} s exceeded waiting for another call's exchange")
                if outcome.error is not None:
                    raise copy.copy(outcome.error)
                if outcome.result is not None:
                    brought: CachedAnswer = outcome.result
                    return brought
                continue  # that call was cancelled, or had less time
            outcome = Outcome()
            try:
                with wait_at_most(left) if waited else nullcontext():
                    answer = yield from self._ask(wanted)
            except AcquisitionTimeout:
                raise
            except (ProviderUnavailable, TokenDenied) as error:
                outcome = Outcome(error=error)
                raise
            else:
                outcome = Outcome(result=answer)
                return answer
            finally:
                self._challenges.end(flight)
                flight.land(outcome)

    def _brought_by(self, wanted: CredentialRequest, claims: str) -> CachedAnswer | None:
        """Find the token that these very claims have just brought, if it is still held.

        An API that refuses it with the same challenge would refuse the next one too, at an exchange a request.
        """
        now = self._sources[0].session.engine.clock.monotonic()
        with self._lock:
            answer, until = self._challenged.get((wanted.key, claims), (None, now))
        return answer if answer is not None and now < until and answer.stands() else None

    def steps_with(self, scopes: tuple[str, ...], options: Any) -> Steps[CachedAnswer]:
        """Take one call through whose options come as a mapping."""
        if options is not None and not isinstance(options, Mapping):
            raise ConfigurationError(f"options must be a mapping, not {type(options).__name__}")
        told = options or {}
        cae = told.get("enable_cae")
        return self.steps(scopes, told.get("claims"), told.get("tenant_id"), False if cae is None else cae)

    def _ask(self, wanted: CredentialRequest) -> Steps[CachedAnswer]:
        failures: list[tuple[Source, ProviderUnavailable]] = []
        suspect: tuple[int, CachedAnswer] | None = None
        last = len(self._sources) - 1
        for index, source in enumerate(self._sources):
            spare = index < last or suspect is not None  # something else than this source to go by
            left = self._time_for(source) if spare else None
            while (prepare := source.prepare(wanted)) is not None:
                with _within(left):
                    yield OnThread(prepare)
            if wanted.claims and not isinstance(source, AnyCredential):
                # The token that was refused goes out of MSAL's cache, which may be a file on a slow disk.
                with _within(left):
                    plan: Plan = yield OnThread(partial(source.plan, wanted))
            else:
                plan = source.plan(wanted)
            error = known_failure(source, plan, wanted) if spare else None
            if error is not None:
                plan.acquisition.close()
                failures.append((source, error))
                continue
            try:
                with _within(left):
                    served = yield from plan.acquisition
            except ProviderUnavailable as raised:
                if spare:
                    doubt(source, plan)
                failures.append((source, raised))
                continue
            try:
                answer = self._answer(wanted, source, plan, served)
            except TokenDenied:
                if suspect is None:
                    raise
                break
            if index < last and answer.token.suspect and served.error is not None:
                # It is valid as far as is known, and an API has refused it: another source's is better.
                failures.append((source, served.error))
                suspect = suspect or (index, answer)
                continue
            self._note(wanted, index, failures)
            return answer
        if suspect is None:
            raise worst(failures)
        self._note(wanted, suspect[0], failures)
        return suspect[1]

    def _time_for(self, source: Source) -> Callable[[], float]:
        """Return what gives the seconds that a source has left; half of the caller's are for the sources behind."""
        now = source.session.engine.clock.monotonic
        ends = now() + min(self._failover_after, patience_of(source.session.settings.wait) / 2)
        return lambda: ends - now()

    def _answer(self, wanted: CredentialRequest, source: Source, plan: Plan, served: Served) -> CachedAnswer:
        """Make the answer, and keep it ready if it may be served again."""
        token, entry, session = served.token, plan.entry, source.session
        if token is None and isinstance(served.result, Mapping):
            # A broker's or a cloud shell's, which MSAL holds by itself.
            token = token_from(session, served.result, {}, ExchangeContext(0.0))
        if token is None:
            raise denial(served.result)
        answer = self._prepare(token, entry)
        at_most = None if source is self._sources[0] else _LOOK_AGAIN
        if entry is not None and served.reason is None and answer.keep(session, entry, at_most=at_most):
            with self._lock:
                if not self._closed:
                    if len(self.ready) >= _MOST_READY:
                        self.ready.clear()
                    self.ready[wanted.key] = answer
                    if wanted.claims:
                        until = session.engine.clock.monotonic() + IN_VAIN_FOR
                        self._challenged[wanted.key, same_claims(wanted.claims)] = answer, until
        return answer

    def _note(self, wanted: CredentialRequest, index: int, failures: list[tuple[Source, ProviderUnavailable]]) -> None:
        """Emit a switch between sources, once."""
        key = wanted.key
        if self._serving.get(key, 0) == index:
            return
        with self._lock:
            previous = self._serving.pop(key, 0)
            if index:
                if len(self._serving) >= _MOST_READY:
                    self._serving.clear()
                self._serving[key] = index
            if previous == index:
                return
        source = self._sources[index]
        emit(
            SourceSwitched(
                at=source.session.engine.clock.wall(),
                scopes=wanted.scopes,
                source=source.name,
                previous=self._sources[previous].name,
                code=failures[previous][1].code if index > previous else "recovered",
            )
        )

    def forget(self, token: str) -> None:
        """Forget a token that an API refused, in all sources, and leave its successor alone."""
        forks.notice()
        require(isinstance(token, str), f"token must be the string that was refused, not {type(token).__name__}")
        for source in self._sources:
            source.forget(token)

    def suspect(self, token: str) -> None:
        """Have a token replaced that an API refused, in all sources; serve it until then."""
        forks.notice()
        require(isinstance(token, str), f"token must be the string that was refused, not {type(token).__name__}")
        for source in self._sources:
            source.suspect(token)

    def close(self) -> list[Any]:
        """Let go of what is held; return the owner's credentials that are to be closed too, as in a chain."""
        forks.notice()
        with self._lock:
            self._closed = True
            self.ready.clear()
            self._challenged.clear()
        for source in self._sources:
            source.close()
        return [source.credential for source in self._sources if isinstance(source, AnyCredential)]

    def __repr__(self) -> str:
        return ", ".join(source.name for source in self._sources)


class Credential:
    """What both faces are made of."""

    _asynchronous: ClassVar[bool]

    @called("settings", elsewhere="resilience")
    def __init__(
        self,
        *sources: Any,
        account: Mapping[str, Any] | None = None,
        settings: Settings | None = None,
        additionally_allowed_tenants: Iterable[str] = (),
        failover_after: float | None = None,
        subject: SubjectOf | None = None,
    ) -> None:
        # Where azure-core is installed it is imported there, which costs more than this package.
        from .cached_answer import prepared

        if not sources:
            raise ConfigurationError(
                "sources must not be empty: give an application of MSAL's, a managed identity client, a credential or "
                "a function"
            )
        if account is not None and not (isinstance(account, Mapping) and account.get("home_account_id")):
            raise ConfigurationError(
                "account must be one that get_accounts() returned, or None for the application's own"
            )
        require(
            settings is None or isinstance(settings, Settings),
            f"settings must be Settings(...), not {type(settings).__name__}",
        )
        require(
            failover_after is None or len(sources) > 1,
            "failover_after has no effect: there is one source, and none to turn to after it",
        )
        failover_after = _FAILOVER_AFTER if failover_after is None else failover_after
        require_number("failover_after", failover_after, low=0.01, high=3600.0)
        check_subject(subject)
        tenants = allowed_tenants(additionally_allowed_tenants)
        made = [
            source_for(
                source,
                position=position,
                account=account,
                settings=settings,
                tenants=tenants,
                asynchronous=self._asynchronous,
                subject=subject,
            )
            for position, source in enumerate(sources)
        ]
        for name, given, reason in (
            ("account", account, "none of the sources is an application of MSAL's"),
            ("additionally_allowed_tenants", tenants, "none of the sources is an application in Entra"),
            ("settings", settings, "every source is resilient already, and has settings of its own"),
        ):
            require(not given or any(name in source.takes for source in made), f"{name} has no effect: {reason}")
        self._core = CredentialCore(made, failover_after, prepared, subject)
        self._ready = self._core.ready

    def __repr__(self) -> str:
        return f"ResilientCredential({self._core!r})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a ResilientCredential can't be pickled: make one in each process")


@contextmanager
def _within(left: Callable[[], float] | None) -> Iterator[None]:
    """Give a source no more time, and no more attempts, than another one behind it leaves."""
    if left is None:
        yield
    else:
        with wait_within(left), once_then_elsewhere():
            yield


cores: LiveObjects[CredentialCore] = LiveObjects()


@forks.renewed
def _after_fork() -> None:
    for core in cores.all():
        core.after_fork()
