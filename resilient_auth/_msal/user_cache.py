"""MSAL's token cache with an index by user, so that what one user costs doesn't grow with the others."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import Any

from msal import TokenCache

from .._fleet.user_record import Entry, Key

__all__ = ["UserCache"]

_ACCESS_TOKEN = TokenCache.CredentialType.ACCESS_TOKEN
_ACCOUNT = TokenCache.CredentialType.ACCOUNT
#: Access tokens after which expired ones are swept out: a user who doesn't come back has left some.
_SWEEP = 1024
_Kind = dict[str, dict[str, Any]]


class UserCache(TokenCache):  # type: ignore[misc]
    """Do what `msal.TokenCache` does; a search that names a home account looks at that account's entries alone.

    Among the access tokens of the application itself it looks at those alone that are good for the scopes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._by_user: dict[str | None, dict[str, _Kind]] = {}
        #: The application's own access tokens by each of their scopes.
        self._own: _Kind = {}
        self._added = 0

    def modify(self, credential_type: str, old_entry: Any, new_key_value_pairs: Any = None) -> None:
        """Change, add or remove an entry."""
        key = self.key_makers[credential_type](**old_entry)
        user = old_entry.get("home_account_id")
        with self._lock:
            super().modify(credential_type, old_entry, new_key_value_pairs)
            if credential_type == _ACCESS_TOKEN and user is None:
                self._index(key)
            if new_key_value_pairs:
                kinds = self._by_user.setdefault(user, {})
                kinds.setdefault(credential_type, {})[key] = self._cache[credential_type][key]
                self._added += credential_type == _ACCESS_TOKEN
                if self._added >= _SWEEP:
                    self._added = 0
                    list(super().search(_ACCESS_TOKEN, query={"home_account_id": "nobody's"}))
                return
            kinds = self._by_user.get(user, {})
            entries = kinds.get(credential_type, {})
            entries.pop(key, None)
            if not entries:
                kinds.pop(credential_type, None)
            if not kinds:
                self._by_user.pop(user, None)

    def _index(self, key: str) -> None:
        """Follow one change of an access token of the application's own, before the other index does."""
        former = self._by_user.get(None, {}).get(_ACCESS_TOKEN, {}).get(key)
        for scope in _scopes(former):
            tokens = self._own.get(scope, {})
            tokens.pop(key, None)
            if not tokens:
                self._own.pop(scope, None)
        latter = self._cache[_ACCESS_TOKEN].get(key)
        for scope in _scopes(latter):
            self._own.setdefault(scope, {})[key] = latter

    def search(
        self, credential_type: str, target: Any = None, query: Any = None, *, now: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Find entries, as MSAL's method of this name; the lock isn't held any more when they are looked at."""
        if not isinstance(query, Mapping) or "home_account_id" not in query:
            return iter(list(super().search(credential_type, target=target, query=query, now=now)))
        wanted = set(target or [])
        wall = int(time.time() if now is None else now)
        user = query["home_account_id"]
        with self._lock:
            if user is None and credential_type == _ACCESS_TOKEN and wanted:
                found = list(min(map(self._own.get, wanted, repeat({})), key=len).values())
            else:
                found = list(self._by_user.get(user, {}).get(credential_type, {}).values())
        matching = []
        for entry in found:
            if credential_type == _ACCESS_TOKEN:
                if int(entry["expires_on"]) < wall:
                    self.remove_at(entry)
                    continue
                # Tokens that were asked for with something extra are for those who ask with the same.
                if "ext_cache_key" in entry and "ext_cache_key" not in query:
                    continue
            if self._is_matching(entry, query, target_set=wanted):
                matching.append(entry)
        # MSAL takes the first one: the very scopes before a superset of them.
        matching.sort(key=lambda entry: set(_scopes(entry)) != wanted)
        return iter(matching)

    def entries(self, user: str) -> dict[Key, Entry]:
        """List a user's entries."""
        with self._lock:
            return {(kind, key): e for kind, held in self._by_user.get(user, {}).items() for key, e in held.items()}

    def evict(self, user: str) -> None:
        """Let go of a user's entries, which a store has."""
        with self._lock:
            # Whoever follows the accounts learns of it.
            for account in list(self._by_user.get(user, {}).get(_ACCOUNT, {}).values()):
                self.modify(_ACCOUNT, account)
            for credential_type, entries in self._by_user.pop(user, {}).items():
                held = self._cache.get(credential_type, {})
                for key in entries:
                    held.pop(key, None)


def _scopes(entry: Mapping[str, Any] | None) -> list[str]:
    return [] if entry is None else str(entry.get("target", "")).split()
