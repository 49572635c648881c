"""What one application object keeps: its engine, its tokens, its identity and its users."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

from msal import TokenCache

from .._engine.acquire import patience_of
from .._engine.cache import Memory, forget_closed
from .._engine.engine import Engine
from .._engine.schedule import release
from .._fleet.accounts import SharedCache
from .._fleet.coordination import Coordinator
from .._fleet.engines import engine_for
from .._fleet.pending_writes import Place
from .._fleet.records import Records
from .._fleet.user_record import Entry, Key, stamp_of
from .._policy.freshness import due_after
from .._process import forks
from ..errors import ConfigurationError, StoreUnavailable
from ..settings import Settings
from ..token import Token, TokenRequest
from .identity import Identity, Ownership
from .token_cache import PERSISTED, CacheFailures, is_watchable, watch
from .user_cache import UserCache

__all__ = ["Session"]

_numbers = itertools.count(1)


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
        #: The application's place in the owner's store, if there is one.
        self.shared_cache: SharedCache | None = None
        self.home = home
        self.cache_name = cache_name
        self._watched: Any = None
        self.watchable = False
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
        owners = self._calls_owner or not (self._watched is None or self.watchable)
        self.memory.lane = self._own_lane if owners else None

    def identify(self, identity: Identity, ownership: Callable[[], Ownership] | None = None) -> None:
        """Say whose tokens these are; they are kept in the owner's store too, if there is one.

        Args:
            identity: The application's.
            ownership: Tells what in MSAL's cache is this application's; None for all.
        """
        self.identity, self._ownership = identity, ownership
        records = self.engine.shared
        if isinstance(records, Records):
            cloud = Ownership.before_discovery(identity).cloud_label
            self.shared_cache = SharedCache(self.engine, records, identity.label, cloud, self)
            self.memory.shared = Coordinator(self.engine, self.shared_cache)
        self.look_at_cache()

    def check_cache(self, cache: Any, identity: Identity) -> None:
        """Refuse to keep in a store what is in a cache that may be a session's, or another application's too.

        Raises:
            ConfigurationError: It may.
        """
        if self.settings.store is None:
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
        shared_cache, since = self.shared_cache, dict[str, float]()
        for msal_entry in (msal_entry for msal_entries in kinds.values() for msal_entry in msal_entries):
            whose = str(msal_entry.get("home_account_id") or "")
            since[whose] = max(since.get(whose, 0.0), float(stamp_of(msal_entry)))
        with nullcontext() if shared_cache is None else self.saved(shared_cache.importing(since)):
            for kind, msal_entries in kinds.items():
                for msal_entry in msal_entries:
                    mine = dict(msal_entry) if owned is None else owned.claim(msal_entry)
                    cache.modify(kind, mine, dict(mine))

    def put_back(self, msal_entries: Mapping[Key, Entry], gone: Iterable[Key]) -> None:
        """Bring into MSAL's cache what the store has, and take out what it hasn't any more."""
        cache = self.look_at_cache()
        for kind, key in gone:
            msal_entry = cache._cache.get(kind, {}).get(key)
            if msal_entry is not None:
                cache.modify(kind, msal_entry)
        for (kind, _), msal_entry in msal_entries.items():
            cache.modify(kind, dict(msal_entry), dict(msal_entry))

    def forgotten(self, subject: str | None) -> None:
        """Follow another process, which has removed an account."""
        self.memory.drop_subject(subject, "removed_elsewhere")

    def entries(self, subject: str) -> Mapping[Key, Entry]:
        """List what MSAL's cache holds of a user."""
        cache = self.look_at_cache()
        if isinstance(cache, UserCache):
            found: Mapping[Key, Entry] = cache.entries(subject)
        else:
            found = {
                (kind, cache.key_makers[kind](**msal_entry)): msal_entry
                for kind in PERSISTED
                for msal_entry in list(cache.search(kind, query={"home_account_id": subject}, now=0))
            }
        return {key: msal_entry for key, msal_entry in found.items() if self.owns(key[0], msal_entry)}

    def evict(self, subject: str) -> bool:
        """Let MSAL's cache go of a user, whom the store has; False where that isn't ours to do: it is its owner's."""
        cache = self.look_at_cache()
        if not isinstance(cache, UserCache):
            return False
        cache.evict(subject)
        return True

    def entry_changed(self, key: Key, old: Entry | None, new: Entry | None) -> None:
        """Follow MSAL, which changed an entry that a store keeps."""
        shared_cache = self.shared_cache
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
            if self._watched is not None and self.shared_cache is not None and not self._may_swap_for(cache):
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
        return bool(have_it) and all(e.identity == self.identity and e.shared_cache is not None for e in have_it)

    def share(self, cache: Any) -> None:
        """Take a token cache, another application's, say, in place of the one there was.

        Raises:
            ConfigurationError: It isn't one.
        """
        if not callable(getattr(type(cache), "search", None)):
            raise ConfigurationError(
                f"token_cache must be a TokenCache, such as SerializableTokenCache(), not {type(cache).__name__}"
            )
        first = self._watched is None
        self.home[self.cache_name] = self._watched = cache
        self.watchable = is_watchable(cache)
        self._choose_lane()
        watched = watch(cache)
        if self.watchable:
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
        if self.shared_cache is not None:
            self.shared_cache.drop_token(request, token)

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
        if not self.watchable:
            return []

        def known() -> list[dict[str, Any]]:
            return [msal_entry for msal_entry in watch(cache).accounts(username) if self.owns("Account", msal_entry)]

        found = known()
        if not found and self.shared_cache is not None:
            self.fetch_accounts(username)
            found = known()
        return found

    def fetch_accounts(self, username: str | None) -> None:
        """Bring accounts that the store has, if there is one, into MSAL's cache.

        Raises:
            StoreUnavailable: It can't be asked.
        """
        forks.notice()
        shared_cache = self.shared_cache
        if shared_cache is not None:
            shared_cache.wait_for(partial(shared_cache.load_accounts, username), patience_of(self.settings.wait))

    def close(self) -> None:
        """Have written what isn't yet, forget all tokens, and end what runs ahead for them."""
        forks.notice()
        self.closed = True
        shared_cache = self.shared_cache
        if shared_cache is not None and not shared_cache.settled:
            with suppress(StoreUnavailable):
                shared_cache.wait_for(shared_cache.flush, self.settings.attempt_timeout)
        for entry in self.memory:
            release(entry)
            entry.renew = None
        self.memory.drop_all("closed")
        forget_closed(self.memory)

    @contextmanager
    def erasing(self, subject: str | None) -> Iterator[None]:
        """Have removed from the store too what the application removes in this block.

        Raises:
            StoreUnavailable: That couldn't be done yet; it is tried again.
        """
        forks.notice()
        shared_cache = self.shared_cache
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
    def saved(self, noting: AbstractContextManager[Collection[Place]] | None = None) -> Iterator[None]:
        """Have written down what a sign-in, or what is noted otherwise, brings before anybody is told of it."""
        shared_cache = self.shared_cache
        if shared_cache is None:
            yield
            return
        changed: Collection[Place] = ()
        try:
            with noting or shared_cache.signing_in() as changed:
                yield
        finally:
            with suppress(StoreUnavailable):
                shared_cache.flush(changed)

    def due(self, life: float, refresh_in: float | None) -> float:
        """Return after how many seconds of a life a refresh is due."""
        return due_after(life, refresh_in, self.settings.freshness, self.engine.jitter)
