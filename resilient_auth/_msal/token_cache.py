"""MSAL's token cache: seen without its access tokens during an exchange, watched for what the application removes."""

from __future__ import annotations

import errno
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any
from urllib.parse import urlsplit

from msal import TokenCache

from .._process import forks
from .._process.living import LiveObjects
from ..clock import Clock
from ..events import StoreFailed, StoreRecovered, emit
from .identity import is_applications_own, marks_of
from .user_cache import UserCache

__all__ = [
    "CacheFailures",
    "CacheObserver",
    "ExchangeView",
    "Owns",
    "after_fork",
    "is_watchable",
    "watch",
]

ACCESS_TOKEN = "AccessToken"  # noqa: S105 - the name of a kind
ACCOUNT = "Account"
#: Seconds after a cache has raised within which it isn't read for who has a valid token in memory.
_REST = 5.0
#: The codes of `StoreFailed` for what a file system says.
_CODES = {errno.ENOSPC: "full", errno.EDQUOT: "full", errno.EROFS: "read_only", errno.EACCES: "denied"}
#: What a store keeps of a cache.
PERSISTED = frozenset({ACCOUNT, ACCESS_TOKEN, "RefreshToken", "IdToken"})

#: What tells whose an entry is that may be under another one's key.
_WHOSE = ("home_account_id", "client_id", "token_endpoint")

#: Tells whether an entry, of a kind, is an application's.
Owns = Callable[[str, Mapping[str, Any]], bool]
#: On a thread that adds what an exchange brought: marks for the entries, and whether it was the application's own.
_obtaining = threading.local()


class CacheFailures:
    """An owner's cache class that raises, on a torn file or a full disk: it is told once, and nothing hangs on it.

    Args:
        clock: The engine's.
        doing: What raises: `reading` or `writing`.
    """

    def __init__(self, clock: Clock, doing: str) -> None:
        self._clock = clock
        self._name = f"token_cache {doing}"
        #: Monotonic times of the first and the last time in a row that it raised; the first is None while it works.
        self.since: float | None = None
        self._last = 0.0

    def began(self, error: Exception) -> None:
        """Note that it raised. Its message may quote what it has read, and is told to nobody."""
        now = self._clock.monotonic()
        first, self._last = self.since is None, now
        if first:
            self.since = now
            code = _CODES.get(getattr(error, "errno", None) or 0, "failed")
            emit(StoreFailed(at=self._clock.wall(), target=self._name, code=code, detail=type(error).__name__))

    def ended(self) -> None:
        """Note that it works again, where it had raised (`since`)."""
        since, self.since = self.since, None
        if since is not None:
            seconds = self._clock.monotonic() - since
            emit(StoreRecovered(at=self._clock.wall(), target=self._name, seconds=seconds))

    @property
    def recent(self) -> bool:
        """Whether it raised a moment ago: some spend a second on that."""
        return self.since is not None and self._clock.monotonic() - self._last < _REST


class ExchangeView(TokenCache):  # type: ignore[misc]
    """A cache in which MSAL finds no access token, so that it asks the provider; what it gets goes to the real one.

    What is in there for other applications, another realm's of one host, say, isn't found either.

    Args:
        cache: The application's.
        keep: Tells whether what comes may still be kept: not after the application has removed the account.
        owns: Tells what is the application's.
        writing: Is told where the cache can't take it: what was obtained is served all the same.
        hide: False for flows that must see access tokens: those that MSAL holds itself, and removals.
    """

    def __init__(
        self, cache: Any, keep: Callable[[], bool], owns: Owns, writing: CacheFailures, *, hide: bool = True
    ) -> None:
        super().__init__()
        self._hide = hide
        self._owns = owns
        self._real = cache
        self._keep = keep
        self._writing = writing
        #: What the provider answered, before MSAL tidied it up.
        self.response: dict[str, Any] = {}
        #: The cache couldn't take it.
        self.unkept = False
        #: Whether it comes over a wire that nobody verifies. MSAL brings some of it here by ways of its own.
        self.unverified = False
        #: What the application declares, which a broker is told and doesn't tell.
        self.capabilities: Iterable[str] | None = None

    def search(self, credential_type: str, *args: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Find what is the application's, access tokens excepted."""
        if self._hide and credential_type == ACCESS_TOKEN:
            return iter(())
        found = list(self._real.search(credential_type, *args, **kwargs))
        return iter([entry for entry in found if self._owns(credential_type, entry)])

    def add(self, event: dict[str, Any], **kwargs: Any) -> None:
        """Keep what was obtained."""
        self.response = event.get("response") or {}
        if self._keep():
            marks = {"unverified": self.unverified, "client_capabilities": self.capabilities}
            self._write(self._real.add, {**event, **marks}, **kwargs)

    def modify(self, credential_type: str, old_entry: Any, new_key_value_pairs: Any = None) -> None:
        """Change or remove an entry; one that can't be removed, for who signs a user out, isn't left there unsaid."""
        if new_key_value_pairs:
            self._write(self._real.modify, credential_type, old_entry, new_key_value_pairs)
        else:
            self._real.modify(credential_type, old_entry)

    def _write(self, write: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            write(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - a class of the owner's may raise anything
            self.unkept = True
            self._writing.began(error)
        else:
            if self._writing.since is not None:
                self._writing.ended()

    def _get_app_metadata(self, *args: Any, **kwargs: Any) -> Any:
        return self._real._get_app_metadata(*args, **kwargs)


def is_watchable(cache: Any) -> bool:
    """Return whether all of a cache's changes go through `modify` and `deserialize` in this process.

    One with a `search` of its own may reload itself from a file that other processes write: it is read each time.
    """
    return type(cache).search in (TokenCache.search, UserCache.search)


class CacheObserver:
    """Notice what an application does to its token cache, however many application objects share it.

    `modify` is the one method through which MSAL's caches change, `add` the one that brings what an exchange gave;
    `deserialize` replaces everything. What is added is marked with the endpoint that gave it, also where an application
    of MSAL's own adds it; an answer to a user's grant that names no account isn't kept: MSAL would take it for the
    application's own.
    """

    def __init__(self, cache: Any) -> None:
        self._lock = threading.Lock()
        self._listening: weakref.WeakSet[Any] = weakref.WeakSet()
        #: Account entries by user name and key, made when first asked for; the names by key.
        self._accounts: dict[str, dict[tuple[str, ...], dict[str, Any]]] | None = None
        self._names: dict[tuple[str, ...], str] = {}
        self._cache = weakref.ref(cache)
        #: Who has been given tokens that are in this cache, as far as is known: origins by host.
        self._givers: dict[str, set[str]] = {}
        self._modify = cache.modify
        cache.modify = self._on_modify
        self._add = cache.add
        cache.add = self._on_add
        if hasattr(cache, "deserialize"):
            self._deserialize = cache.deserialize
            cache.deserialize = self._on_deserialize

    def tell(self, listener: Any) -> None:
        """Have `listener.token_removed(entry)`, `.entry_changed(...)` and `.cache_replaced()` called while it lives."""
        with self._lock:
            self._listening.add(listener)

    def listeners(self) -> list[Any]:
        """List who has this cache."""
        with self._lock:
            return list(self._listening)

    def gives(self, endpoint: str) -> None:
        """Note a token endpoint whose tokens come here."""
        parts = urlsplit(endpoint)
        with self._lock:
            self._givers.setdefault(parts.hostname or "", set()).add(parts.netloc)

    def is_alone(self, endpoint: str) -> bool:
        """Return whether no other port of a token endpoint's host is known to give tokens that come here."""
        parts = urlsplit(endpoint)
        with self._lock:
            return self._givers.get(parts.hostname or "", set()) <= {parts.netloc}

    def _on_add(self, event: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        forks.notice()
        marks = marks_of(event)
        if marks:
            self.gives(marks["token_endpoint"])
        outer = getattr(_obtaining, "now", None)
        _obtaining.now = marks, is_applications_own(event)
        try:
            return self._add(event, *args, **kwargs)
        finally:
            _obtaining.now = outer

    def _on_modify(self, credential_type: str, old_entry: Any, new_key_value_pairs: Any = None) -> Any:
        obtained = getattr(_obtaining, "now", None)
        if obtained is None:
            forks.notice()
        cache = self._cache()
        former = key = None
        if credential_type in PERSISTED and cache is not None:
            if obtained is not None and new_key_value_pairs:
                marks, is_own = obtained
                if old_entry.get("home_account_id") is None and not is_own:
                    return None
                new_key_value_pairs = {**new_key_value_pairs, **marks}
            key = cache.key_makers[credential_type](**old_entry)
            former = cache._cache.get(credential_type, {}).get(key)
            whose = {**old_entry, **(new_key_value_pairs or {})}
            if former is not None and any(former.get(name) != whose.get(name) for name in _WHOSE):
                former = None  # MSAL's keys have no case, and no ports: another one's is in this place
        result = self._modify(credential_type, old_entry, new_key_value_pairs)
        if key is not None:
            latter = {**old_entry, **new_key_value_pairs} if new_key_value_pairs else None
            for listener in self.listeners():
                listener.entry_changed((credential_type, key), former or old_entry, latter)
        if credential_type == ACCOUNT:
            with self._lock:
                self._index(old_entry, new_key_value_pairs)
        elif credential_type == ACCESS_TOKEN and not new_key_value_pairs:
            for listener in self.listeners():
                listener.token_removed(old_entry)
        return result

    def _on_deserialize(self, state: Any) -> Any:
        result = self._deserialize(state)
        with self._lock:
            self._accounts = None
        for listener in self.listeners():
            listener.cache_replaced()
        return result

    def accounts(self, username: str) -> list[dict[str, Any]]:
        """List the account entries with this user name, in lower case, without looking at all the others."""
        cache = self._cache()
        # MSAL calls `modify` with its lock held, so that one always comes first.
        with getattr(cache, "_lock", nullcontext()), self._lock:
            if self._accounts is None:
                self._accounts, self._names = {}, {}
                for entry in list(cache.search(ACCOUNT)) if cache is not None else []:
                    self._index(entry, entry)
            return list(self._accounts.get(username, {}).values())

    def _index(self, old_entry: Any, new: Any) -> None:
        """Follow one change of an account; the lock is held."""
        if self._accounts is None:
            return
        entry = {**old_entry, **(new or {})}
        key = tuple(str(entry.get(name) or "").lower() for name in ("home_account_id", "environment", "realm"))
        former = self._names.pop(key, None)
        if former is not None:
            self._accounts[former].pop(key, None)
            if not self._accounts[former]:
                del self._accounts[former]
        if new:
            name = str(entry.get("username") or "").lower()
            self._names[key] = name
            self._accounts.setdefault(name, {})[key] = entry

    def before_fork(self, seconds: float) -> Any:
        """Let no other thread be in the middle of a change, if that can be had soon; gives the lock that is held."""
        lock = getattr(self._cache(), "_lock", None)
        # A search that somebody began and never finished holds it for ever.
        return lock if lock is not None and lock.acquire(timeout=seconds) else None

    def after_fork(self) -> None:
        """Take locks of its own in a forked child, and give the cache one too: the parent's may be held for ever."""
        self._lock = threading.Lock()
        cache = self._cache()
        if cache is not None:
            cache._lock = threading.RLock()


_watches: LiveObjects[CacheObserver] = LiveObjects()
_making = threading.Lock()
#: By thread, the locks that it holds while it forks: two may fork at the same time.
_held: dict[int, list[Any]] = {}
#: Seconds that a fork waits for all of them.
_LONGEST_WAIT = 1.0


def watch(cache: Any) -> CacheObserver:
    """Find the watch over a cache, or set one up."""
    forks.notice()
    with _making:
        found = getattr(cache, "_resilient_auth_watch", None)
        if isinstance(found, CacheObserver):
            return found
        made = CacheObserver(cache)
        cache._resilient_auth_watch = made
        _watches.add(made)
        return made


def before_fork() -> None:
    """Get the caches ready to be copied."""
    held = _held.setdefault(threading.get_ident(), [])
    ends = time.monotonic() + _LONGEST_WAIT
    for each in _watches.all():
        lock = each.before_fork(max(0.0, ends - time.monotonic()))
        if lock is not None:
            held.append(lock)


def after_fork_in_parent() -> None:
    """Go on after they were."""
    for lock in _held.pop(threading.get_ident(), ()):
        lock.release()


def after_fork() -> None:
    """Make the caches of a forked child usable."""
    global _making
    _making = threading.Lock()
    _held.clear()
    for each in _watches.all():
        each.after_fork()
