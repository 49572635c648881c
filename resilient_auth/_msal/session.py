"""What one application object keeps: its engine, its tokens, and how its calls become acquisitions."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from msal import TokenCache

from .._engine import refresh
from .._engine.acquire import Acquisition, Served, Source, acquire, acquiring, asking_once, patience_of
from .._engine.cache import CacheEntry, Exchange, Memory, forget_closed
from .._engine.engine import Engine, engine_for
from .._engine.single_flight import Flight, Outcome
from .._fleet.accounts import SharedCache
from .._fleet.user_record import Entry, Key, stamp_of
from .._policy.endpoint import Endpoint
from .._policy.failure import Purpose
from .._policy.freshness import due_after
from .._process import forks
from .._wire.http_client import ExchangeContext
from ..errors import Closed, ConfigurationError, ProviderUnavailable, StoreUnavailable
from ..settings import Settings
from ..token import Token, TokenRequest, fingerprint
from .identity import Identity, Ownership
from .token_cache import CacheFailures, holds, is_watchable, watch
from .user_cache import UserCache, entries_of, evict, put_back

__all__ = ["Hit", "Plan", "Session", "check_scopes"]

#: No life of a token and no time of this era has as many; NaN and the infinities don't lie below it either.
_MOST_SECONDS = 1e11

_numbers = itertools.count(1)

RESERVED_SCOPES = frozenset({"openid", "profile", "offline_access"})


class Hit:
    """An answer made ready, good until a refresh is due on either clock and while the cache is the same one."""

    __slots__ = ("answer", "cache", "due_at", "due_on", "expires_at")

    def __init__(self, token: Token, answer: dict[str, Any], cache: Any) -> None:
        self.answer = answer
        self.cache = cache
        self.due_on = token.obtained_on + token.due_after
        self.due_at = token.obtained_at + token.due_after
        self.expires_at = token.obtained_at + token.life


@dataclass(slots=True)
class Plan:
    """How one call is carried out: first `load`, which may read a file, then the acquisition, then `finish`."""

    acquisition: Acquisition
    finish: Callable[[Served], Any]
    load: Callable[[], None] | None = None
    entry: CacheEntry | None = None
    #: Tells after a failure whether MSAL would have answered without asking: there is nothing to ask with.
    moot: Callable[[], bool] | None = None

    def run(self) -> Any:
        """Carry it out on this thread."""
        if self.load is not None:
            self.load()
        try:
            return self.finish(acquire(self.acquisition))
        except ProviderUnavailable:
            if self.moot is None or not self.moot():
                raise
            return None


class Session:
    """The state of one application object that isn't MSAL's.

    Args:
        settings: The owner's; None for the defaults.
        home: The `__dict__` in which the application's `token_cache` lives, which the application may swap.
        cache_name: Under which name.
    """

    def __init__(self, settings: Settings | None, home: dict[str, Any], cache_name: str = "token_cache") -> None:
        if settings is not None and not isinstance(settings, Settings):
            raise ConfigurationError(f"resilience must be Settings(...), not {settings!r}")
        self.settings = settings or Settings()
        self.engine: Engine = engine_for(self.settings)
        self.memory = Memory(self.settings.max_tokens, self.engine)
        self.home = home
        self.cache_name = cache_name
        self._watched: Any = None
        self._watchable = False
        #: The lane for exchanges that call the owner's code, and whether they do, whatever their cache is.
        self._own_lane: str | None = None
        self._calls_owner = False
        #: What an owner's cache class may raise.
        self.reading, self.writing = (
            CacheFailures(self.engine.clock, "reading"),
            CacheFailures(self.engine.clock, "writing"),
        )
        self.closed = False
        self._discarding = threading.local()
        self.identity: Identity | None = None
        #: Tells what in MSAL's cache is this application's, as far as is known now; None for all.
        self._ownership: Callable[[], Ownership] | None = None
        self._owned: Ownership | None = None

    def name_lane(self, provider: str, *, calls_owner: bool) -> None:
        """Have exchanges run in a lane of their own where they call the owner's code.

        Args:
            provider: Whom they ask.
            calls_owner: Whether there is a function of the owner's that they call; a cache of a class of the owner's is
                seen to by itself.
        """
        self._own_lane, self._calls_owner = f"{provider} for application {next(_numbers)}", calls_owner
        self._choose_lane()

    def _choose_lane(self) -> None:
        owners = self._calls_owner or not (self._watched is None or self._watchable)
        self.memory.lane = self._own_lane if owners else None

    def identify(self, identity: Identity, ownership: Callable[[], Ownership] | None = None) -> None:
        """Say whose tokens these are; they are kept in the owner's store too, if there is one.

        Args:
            identity: The application's.
            ownership: Tells what in MSAL's cache is this application's; None for all.
        """
        self.identity, self._ownership = identity, ownership
        if self.engine.stored is not None:
            cloud = Ownership.before_discovery(identity).cloud_label
            self.memory.shared_cache = SharedCache(self.engine, self.engine.stored, identity.label, cloud, self)
        self.look_at_cache()

    def check_cache(self, cache: Any, identity: Identity) -> None:
        """Refuse to keep in a store what is in a cache that may be a session's, or another application's too.

        Raises:
            ConfigurationError: It may.
        """
        if self.engine.stored is None:
            return
        if type(cache) not in (TokenCache, UserCache):
            raise ConfigurationError(
                f"the application has a token_cache of its own, a {type(cache).__name__}, and Settings(store=...) "
                "would give what is in it to all who use the store: leave out the one or the other. "
                "import_msal_cache brings over what a cache holds"
            )
        if any(each.identity != identity for each in watch(cache).listeners()):
            raise ConfigurationError(
                "the application shares its token_cache with another one, and Settings(store=...) would mix their "
                "users: give each application a cache of its own, or leave the store out"
            )

    def owns(self, kind: str, msal_entry: Mapping[str, Any]) -> bool:
        """Return whether an entry of MSAL's cache is this application's: others may have the same cache."""
        if self._ownership is None:
            return True
        owned, cache = self._owned, self._watched
        if owned is None or owned.endpoint is None:
            owned = self._owned = self._ownership()
        unmarked = isinstance(cache, UserCache) or owned.is_told_apart
        if not unmarked and owned.cloud is not None and owned.endpoint is not None:
            unmarked = watch(cache).is_alone(owned.endpoint)
        return owned.covers(kind, msal_entry, unmarked=unmarked)

    def bring_in(self, kinds: Mapping[str, Collection[dict[str, Any]]]) -> None:
        """Put entries from elsewhere into MSAL's cache as this application's, and have them written down.

        Who was removed from the store after their latest entry was obtained isn't brought back.
        """
        cache = self.look_at_cache()
        owned = None if self._ownership is None else self._ownership()
        shared_cache, since = self.memory.shared_cache, dict[str, float]()
        for msal_entry in (msal_entry for msal_entries in kinds.values() for msal_entry in msal_entries):
            whose = str(msal_entry.get("home_account_id") or "")
            since[whose] = max(since.get(whose, 0.0), float(stamp_of(msal_entry)))
        with nullcontext() if shared_cache is None else self._saved(shared_cache.importing(since)):
            for kind, msal_entries in kinds.items():
                for msal_entry in msal_entries:
                    mine = dict(msal_entry) if owned is None else owned.claim(msal_entry)
                    cache.modify(kind, mine, dict(mine))

    def put_back(self, msal_entries: Mapping[Key, Entry], gone: Iterable[Key]) -> None:
        """Bring into MSAL's cache what the store has."""
        put_back(self.look_at_cache(), msal_entries, gone)

    def forgotten(self, subject: str | None) -> None:
        """Follow another process, which has removed an account."""
        self.memory.drop_subject(subject, "removed_elsewhere")

    def entries(self, subject: str) -> Mapping[Key, Entry]:
        """List what MSAL's cache holds of a user."""
        found = entries_of(self.look_at_cache(), subject)
        return {key: msal_entry for key, msal_entry in found.items() if self.owns(key[0], msal_entry)}

    def evict(self, subject: str) -> bool:
        """Let MSAL's cache go of a user, whom the store has."""
        return evict(self.look_at_cache(), subject)

    def entry_changed(self, key: Key, old: Entry | None, new: Entry | None) -> None:
        """Follow MSAL, which changed an entry that a store keeps."""
        shared_cache = self.memory.shared_cache
        if shared_cache is not None and self.owns(key[0], new or old or {}):
            shared_cache.note(key, old, new)

    def look_at_cache(self) -> Any:
        """Find the application's token cache; a new one there makes what is in memory void.

        Raises:
            ConfigurationError: There is a new one, and a store: what is in the store isn't for who is in that cache.
        """
        forks.notice()
        cache = self.home[self.cache_name]
        if cache is not self._watched:
            if self._watched is not None and self.memory.shared_cache is not None and not self._may_swap_for(cache):
                raise ConfigurationError(
                    "token_cache was replaced, and Settings(store=...) keeps everybody's tokens: a cache for each "
                    "session needs an application without a store. Put the former cache back, or leave out the store"
                )
            self.share(cache)
        return cache

    def _may_swap_for(self, cache: Any) -> bool:
        """Return whether a cache is that of the same application, in another object with a store."""
        if type(cache) is not UserCache:
            return False
        have_it = watch(cache).listeners()
        return bool(have_it) and all(e.identity == self.identity and e.memory.shared_cache is not None for e in have_it)

    def share(self, cache: Any) -> None:
        """Take a token cache, another application's, say, in place of the one there was."""
        first = self._watched is None
        self.home[self.cache_name] = self._watched = cache
        self._watchable = is_watchable(cache)
        self._choose_lane()
        watched = watch(cache)
        if self._watchable:
            watched.tell(self)
        self.announce()
        if not first:
            self.memory.drop_all("cache_replaced")

    def announce(self) -> None:
        """Say to the token cache who gives this application its tokens, as soon as that is known."""
        endpoint = None if self._ownership is None else self._ownership().endpoint
        if endpoint is not None:
            watch(self._watched).gives(endpoint)

    def token_removed(self, msal_entry: Mapping[str, Any]) -> None:
        """Follow the application, which took an access token out of its cache."""
        if getattr(self._discarding, "on", False):
            return
        living = (
            int(msal_entry.get("expires_on", 0)) > self.engine.clock.wall()
        )  # MSAL sweeps out expired ones by itself
        if living and self.owns("AccessToken", msal_entry):
            self.memory.drop_subject(msal_entry.get("home_account_id"), "removed")

    def discard(
        self, request: TokenRequest, msal_entries: Callable[[], Iterable[dict[str, Any]]], token: Token
    ) -> None:
        """Take one token that must not be served any more out of MSAL's cache and the store, its successor left alone.

        Args:
            request: Of which it was the answer.
            entries: Lists what MSAL's cache holds that may be that token.
            token: Which one.
        """
        with self.discarding():
            for msal_entry in msal_entries():
                if msal_entry.get("secret") == token.secret:
                    self.look_at_cache().remove_at(msal_entry)
        if self.memory.shared_cache is not None:
            self.memory.shared_cache.drop_token(request, token)

    @contextmanager
    def discarding(self) -> Iterator[None]:
        """Take single tokens out of MSAL's cache in this block: that is no removal of whom they are for."""
        self._discarding.on = True
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a class of the owner's may raise anything
            self.writing.began(error)
        finally:
            self._discarding.on = False

    def cache_replaced(self) -> None:
        """Follow the application, which loaded its cache anew."""
        self.memory.drop_all("cache_loaded")

    def accounts(self, username: str) -> list[dict[str, Any]]:
        """List the account entries with this user name, in lower case; none where they can't be followed.

        Raises:
            StoreUnavailable: There are none in memory, and the store can't tell whether it has any.
        """
        cache = self.look_at_cache()
        if not self._watchable:
            return []

        def known() -> list[dict[str, Any]]:
            return [msal_entry for msal_entry in watch(cache).accounts(username) if self.owns("Account", msal_entry)]

        found = known()
        if not found and self.memory.shared_cache is not None:
            self.fetch_accounts(username)
            found = known()
        return found

    def fetch_accounts(self, username: str | None) -> None:
        """Bring accounts that the store has, if there is one, into MSAL's cache.

        Raises:
            StoreUnavailable: It can't be asked.
        """
        forks.notice()
        shared_cache = self.memory.shared_cache
        if shared_cache is not None:
            shared_cache.wait_for(partial(shared_cache.load_accounts, username), patience_of(self.settings.wait))

    def close(self) -> None:
        """Have written what isn't yet, forget all tokens, and end what runs ahead for them."""
        forks.notice()
        self.closed = True
        shared_cache = self.memory.shared_cache
        if shared_cache is not None and not shared_cache.settled:
            with suppress(StoreUnavailable):
                shared_cache.wait_for(shared_cache.flush, self.settings.attempt_timeout)
        for entry in self.memory:
            refresh.release(entry)
            entry.renew = None
        self.memory.drop_all("closed")
        forget_closed(self.memory)

    def plan(
        self,
        request: TokenRequest,
        authorities: tuple[Endpoint, ...],
        exchange_for: Callable[[CacheEntry], Exchange],
        *,
        repeatable: bool,
        read: Callable[[Any], Token | None] | None,
        discard: Callable[[Token], None] | None = None,
        purpose: Purpose = Purpose.TOKEN,
        signature: Any = None,
        claims: str | None = None,
        force: bool = False,
        silent: bool = False,
    ) -> Plan:
        """Plan one call that wants a token which may be held.

        Args:
            request: What is wanted.
            authorities: The endpoints that can give it.
            exchange_for: Makes the way to ask.
            repeatable: Whether it may be asked again with nobody calling.
            read: How to find the token in MSAL's cache.
            discard: How to take one out of it that must not be served any more.
            purpose: Whose breaker holds.
            signature: The call, if it may be answered from memory without more ado next time.
            claims: A claims challenge.
            force: Don't serve what is held.
            silent: A denial is None and not an error dict.
        """
        if self.closed:
            raise Closed("this application object was closed: make a new one, or close it later")
        cache = self.look_at_cache()
        entry = self.memory.entry(request, authorities, purpose)
        entry.authorities = authorities
        exchange = exchange_for(entry)
        if read is not None and self.memory.shared_cache is not None:
            entry.read = lambda: read(self.look_at_cache())
        if entry.discard is None:
            entry.discard = discard
        if repeatable and entry.renew is None:
            entry.renew = exchange

        def load() -> None:
            if read is None or (entry.token is not None and self.reading.recent):
                return
            held = entry.token
            missing = False
            try:
                token = read(cache)
                if token is None and held not in (None, entry.unkept) and not self._watchable and not held.extras:
                    missing = not holds(cache, held, request.subject)
            except Exception as error:  # noqa: BLE001 - a class of the owner's may raise anything
                self.reading.began(error)
                return
            self.reading.ended()
            if token is not None and entry.refused is not None and fingerprint(token.secret) == entry.refused:
                token = None
            if token is not None and (held is None or held.secret != token.secret):
                self.memory.put(entry, token)
                if self.memory.shared_cache is not None:
                    self.memory.shared_cache.note_token(request, token)
            elif missing and held is not None:
                self.memory.drop_token(entry, held, "removed_elsewhere")

        def finish(served: Served) -> Any:
            answer = self._answer(served)
            token = served.token
            if signature is not None and served.reason is None and token is not None and self._watchable:
                held = _from_cache(token)
                self.memory.remember_hit(entry, token, signature, Hit(token, held, cache))
            return None if silent and answer is not None and "error" in answer else answer

        must_load = read is not None and not (claims or force) and (entry.token is None or not self._watchable)
        acquisition = acquiring(self.engine, entry, exchange, claims=claims, force=force)
        return Plan(acquisition, finish, load if must_load else None, entry)

    def once(
        self, authorities: tuple[Endpoint, ...], client_id: str, subject: str | None, ask: Callable[[], Any]
    ) -> Plan:
        """Plan one exchange whose result is nobody else's: a code's, a password's, somebody's refresh token's."""
        forks.notice()
        if self.closed:
            raise Closed("this application object was closed: make a new one, or close it later")

        def exchange(flight: Flight) -> Outcome:
            with ExchangeContext(deadline=flight.deadline, subject=subject).under_way(), self._saved():
                return Outcome(result=ask())

        acquisition = asking_once(self.engine, authorities, client_id, subject, exchange, self.memory.lane)
        return Plan(acquisition, lambda served: served.result)

    @contextmanager
    def erasing(self, subject: str | None) -> Iterator[None]:
        """Have removed from the store too what the application removes in this block.

        Raises:
            StoreUnavailable: That couldn't be done yet; it is tried again.
        """
        forks.notice()
        shared_cache = self.memory.shared_cache
        if shared_cache is None:
            yield
            return
        try:
            with shared_cache.saving_later():
                yield
        except BaseException:
            shared_cache.flush_soon()
            raise
        shared_cache.erase(subject, patience_of(self.settings.wait))

    @contextmanager
    def _saved(self, noting: AbstractContextManager[None] | None = None) -> Iterator[None]:
        """Have written down what a sign-in, or what is noted otherwise, brings before anybody is told of it."""
        shared_cache = self.memory.shared_cache
        if shared_cache is None:
            yield
            return
        try:
            with noting or shared_cache.signing_in():
                yield
        finally:
            with suppress(StoreUnavailable):
                shared_cache.flush()

    def token_from(
        self,
        result: Mapping[str, Any],
        response: Mapping[str, Any],
        exchange_context: ExchangeContext,
        *,
        extras: bool = False,
    ) -> Token | None:
        """Make a token of what MSAL returned and what the provider had answered.

        Its life is counted from when the request went out: the provider counts from a moment after that.
        """
        if "access_token" not in result:
            return None
        clock = self.engine.clock
        sent_on = clock.wall() if exchange_context.sent_on is None else exchange_context.sent_on
        sent_at = clock.monotonic() if exchange_context.sent_at is None else exchange_context.sent_at
        life = _seconds(result.get("expires_in"))
        if life is None:
            life = _seconds(response.get("expires_in"))
        ends = _seconds(response.get("expires_on"))
        if life is None and ends:
            life = max(0.0, ends - sent_on)
        life = 600.0 if life is None else life  # as MSAL assumes (RFC 6749, section 5.1)
        refresh_in = _seconds(response.get("refresh_in"))
        refresh_on = _seconds(result.get("refresh_on"))
        if refresh_in is None and refresh_on is not None:
            refresh_in = max(0.0, refresh_on - clock.wall())
        return Token(
            secret=str(result["access_token"]),
            token_type=str(result.get("token_type", "Bearer")),
            obtained_on=sent_on,
            obtained_at=sent_at,
            life=life,
            due_after=self.due(life, refresh_in),
            refresh_on=None if refresh_on is None else int(refresh_on),
            extras={k: v for k, v in result.items() if k != "refresh_token"} if extras else {},
        )

    def due(self, life: float, refresh_in: float | None) -> float:
        """Return after how many seconds of a life a refresh is due."""
        return due_after(life, refresh_in, self.settings.freshness, self.engine.jitter)

    def _answer(self, served: Served) -> Any:
        token = served.token
        if served.source is Source.IDENTITY_PROVIDER:
            return dict(served.result) if isinstance(served.result, Mapping) else served.result
        assert token is not None  # noqa: S101 - only the provider's own answers come without
        clock = self.engine.clock
        wall, now = clock.wall(), clock.monotonic()
        answer = _from_cache(token)
        answer["expires_in"] = max(0, int(token.remaining(wall, now)))
        answer["token_source"] = served.source.value
        if served.reason is not None:
            answer["resilience"] = {
                "reason": served.reason,
                "age": round(token.age(wall, now), 3),
                "remaining": round(token.remaining(wall, now), 3),
                "provider": _what_is_known(served.error),
            }
        return answer


def _from_cache(token: Token) -> dict[str, Any]:
    answer = {
        **token.extras,
        "access_token": token.secret,
        "token_type": token.token_type,
        "expires_in": 0,
        "token_source": Source.CACHE.value,
    }
    if token.refresh_on is not None:
        answer["refresh_on"] = token.refresh_on
    return answer


def _what_is_known(error: ProviderUnavailable | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {"code": error.code, "detail": error.message, "retry_after": error.retry_after}


def _seconds(value: object) -> float | None:
    """Read a number of seconds that somebody's broker or client may have made up; None for what can't be one."""
    try:
        seconds = None if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, seconds) if seconds is not None and abs(seconds) < _MOST_SECONDS else None


def check_scopes(
    scopes: object, *, name: str = "scopes", empty: bool = False, reserved: bool = False
) -> tuple[str, ...]:
    """Take a list of scopes, or say what is wrong with it before anything is sent.

    Returns them sorted and without repetitions.
    """
    if isinstance(scopes, (str, bytes)):
        raise ConfigurationError(f"{name} must be a list of strings, not the string {scopes!r}: write [{scopes!r}]")
    if not isinstance(scopes, (list, tuple, set, frozenset)):
        raise ConfigurationError(f"{name} must be a list of strings, not {type(scopes).__name__}")
    for scope in scopes:
        if not isinstance(scope, str) or not scope or scope != scope.strip():
            raise ConfigurationError(f"{name} must hold non-empty strings without blanks around them, not {scope!r}")
    if not scopes and not empty:
        raise ConfigurationError(f'{name} must not be empty: ask for "<resource>/.default" or for the API\'s scopes')
    if not reserved and (taken := RESERVED_SCOPES & set(scopes)):
        raise ConfigurationError(
            f"{name} must not hold {', '.join(sorted(taken))}: these are asked for by themselves where they are needed"
        )
    return tuple(sorted(set(scopes)))
