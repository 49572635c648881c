"""What a store holds for one application, looked at and not taken: nothing of it changes memory or MSAL's cache."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress

from .._engine.shared import SharedEntry
from ..token import Token, TokenRequest
from .coordination import Coordinator
from .user_record import Entry, UserRecord

__all__ = ["everything", "kept"]

#: MSAL asks for these beside a user's scopes.
_BESIDE = frozenset({"openid", "profile", "offline_access"})


def kept(coordinator: Coordinator, entries: Sequence[SharedEntry]) -> list[tuple[SharedEntry, Token]]:
    """Return the tokens of these entries that the store has, and that would be served if nothing better were held.

    Raises:
        StoreUnavailable: It can't be read.
    """
    by_request = {entry.request: entry for entry in entries}
    found = []
    for request, user_record in coordinator.shared_cache.peek(list(by_request)):
        token = coordinator.token_in(user_record, by_request[request])
        if token is not None:
            found.append((by_request[request], token))
    return found


def everything(coordinator: Coordinator) -> Iterator[tuple[TokenRequest, float]]:
    """Yield what each access token of the application that any process has put there is for, and when it ends.

    Raises:
        StoreUnavailable: It can't be read.
    """
    cache = coordinator.shared_cache
    authority = str(json.loads(cache.label)[0]).partition(" ")[0]
    for user_record in cache.stored.all_partitions(cache.label):
        yield from _tokens(user_record)
        for (kind, _), entry in user_record.entries.items():
            if kind == "AccessToken" and cache.owns(kind, entry):
                with suppress(ValueError, TypeError, KeyError):
                    yield _request_of(entry, authority), float(entry["expires_on"])


def _tokens(user_record: UserRecord) -> Iterator[tuple[TokenRequest, float]]:
    for name, stored in user_record.tokens.items():
        with suppress(ValueError, TypeError):  # another release may write it another way
            authority, client_id, flow, scopes, subject, variant = json.loads(name)
            request = TokenRequest(authority, client_id, flow, tuple(scopes), subject, variant)
            yield request, stored.obtained_on + stored.life


def _request_of(entry: Entry, authority: str) -> TokenRequest:
    scopes = tuple(sorted(set(str(entry["target"]).split()) - _BESIDE))
    return TokenRequest(authority, str(entry["client_id"]), "silent", scopes, str(entry["home_account_id"]))
