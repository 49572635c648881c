"""What a store holds of one user, or of the application itself: read whole, merged, written whole."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

from ..token import Token, TokenRequest, fingerprint
from .bodies import finite, whole

__all__ = [
    "TOMBSTONE_LIFE",
    "Change",
    "Dropped",
    "Entry",
    "Key",
    "SignIn",
    "StoredToken",
    "UserRecord",
    "decode",
    "encode",
    "is_from_the_future",
    "is_over",
    "merge",
    "new_name",
    "prune",
    "seconds_worth_keeping",
    "stamp_of",
    "stored_token",
    "token_key",
]

#: An entry of MSAL's cache: its credential type, and MSAL's own key.
Key = tuple[str, str]
Entry = Mapping[str, Any]

#: The provider's refresh tokens end when they haven't been used for this long; so does what is stored with them.
_REFRESH_TOKEN_LIFE = 90 * 24 * 3600.0
#: Seconds for which a removal is kept: until the refresh tokens from before it are over. What a process has known for
#: longer without another look isn't believed.
TOMBSTONE_LIFE = _REFRESH_TOKEN_LIFE
_MOST_SPENT = 64
_ACCESS_TOKEN = "AccessToken"  # noqa: S105 - the name of a kind
_REFRESH_TOKEN = "RefreshToken"  # noqa: S105 - the name of a kind
#: Seconds by which the clocks of two machines may disagree before one doesn't believe the other's times.
_SKEW = 60.0
#: Seconds after a removal from which on a sign-in surely followed it, whichever clocks tell of the two. Who has to sign
#: in once more has lost less than who signed out and is in again.
_SURELY_AFTER = 300.0

_members = attrgetter(*TokenRequest.__slots__)


@dataclass(frozen=True, slots=True, repr=False)
class StoredToken:
    """An access token with times that mean the same in every process."""

    secret: str
    token_type: str
    obtained_on: float
    life: float
    due_after: float
    refresh_on: int | None
    extras: Mapping[str, Any]
    #: That of the lease under which it was obtained; 0 for none.
    fence: int = 0

    def revive(self, wall: float, now: float) -> Token | None:
        """Make a token of it, or None when it is over, or from a time that hasn't come."""
        age = wall - self.obtained_on
        if age < -_SKEW or age >= self.life:
            return None
        return Token(
            secret=self.secret,
            token_type=self.token_type,
            obtained_on=self.obtained_on,
            obtained_at=now - max(0.0, age),
            life=self.life,
            due_after=self.due_after,
            refresh_on=self.refresh_on,
            extras=self.extras,
        )


@dataclass(frozen=True, slots=True, repr=False)
class Dropped:
    """An access token that must not be served any more."""

    secret: str


@dataclass(frozen=True, slots=True, repr=False)
class Change:
    """What this process did to an entry: what it knew before, and what it is now; None for removed."""

    old: Entry | None
    new: Entry | None


@dataclass(slots=True, eq=False)
class SignIn:
    """A sign-in that is to be written: how it stands to removals by other processes.

    Whoever writes it looks at it anew with each attempt: its caller may have given up since.
    """

    #: When it was, in seconds since the epoch, by the clock of its own process.
    made_on: float = 0.0
    #: The last removal that its process knew of by then; see `UserRecord.born`.
    known: str = ""
    #: Whether its caller may still wait for it: then none can have come after it.
    under_way: bool = True

    def follows(self, removal: UserRecord) -> bool:
        """Return whether it is sure that it came after a removal."""
        if self.under_way or (self.known and self.known == removal.born):
            return True
        return self.made_on > removal.removed_on + _SURELY_AFTER


@dataclass(frozen=True, slots=True, repr=False)
class UserRecord:
    """One user's entries of MSAL's cache, and the access tokens that MSAL's cache has no place for.

    The application's own tokens are in partitions without entries, one for each set of scopes.
    """

    #: Names the sign-in that made it: what was obtained under another one isn't merged in. Or the removal, where it is
    #: known which one: of those that were written late or by an older release it isn't.
    born: str
    entries: Mapping[Key, Entry] = field(default_factory=dict)
    tokens: Mapping[str, StoredToken] = field(default_factory=dict)
    #: Fingerprints of refresh tokens that later ones have replaced: the order of rotations, whatever the clocks say.
    spent: tuple[str, ...] = ()
    #: The account was removed; kept for a while, so that nobody who hasn't heard of it brings it back.
    removed: bool = False
    #: When, in seconds since the epoch.
    removed_on: float = 0.0
    #: That of the latest lease under which a user's entries were obtained; 0 for none.
    fence: int = field(default=0, compare=False)
    #: When it was last noted by which user names, and in which tenants, its user is found.
    named_on: float = 0.0
    #: The store's, for compare-and-set; None for what isn't there yet.
    version: str | None = None

    def find(self, request: TokenRequest, wall: float, now: float) -> Token | None:
        """Find a valid token."""
        stored = self.tokens.get(token_key(request))
        return None if stored is None else stored.revive(wall, now)

    def find_entry(self, request: TokenRequest, wall: float, owns: Callable[[str, Entry], bool]) -> Entry | None:
        """Find the entry of a user's valid token; None where those of several tenants would do.

        Args:
            request: Which one.
            wall: Seconds since the epoch.
            owns: Tells whether an entry of a kind is the application's, by its authority and client.
        """
        if request.variant:
            return None
        tokens = [e for (kind, _), e in self.entries.items() if kind == _ACCESS_TOKEN and owns(kind, e)]
        good = [e for e in tokens if _is_good_for(e, request, wall)]
        if len({entry.get("realm") for entry in good}) != 1:
            return None
        return max(good, key=_ends)


def _is_good_for(entry: Entry, request: TokenRequest, wall: float) -> bool:
    return (
        entry.get("client_id") == request.client_id
        and entry.get("home_account_id") == request.subject
        and not {"ext_cache_key", "key_id"} & entry.keys()
        and set(request.scopes) <= set(str(entry.get("target") or "").split())
        and _ends(entry) > wall
        and not is_from_the_future(entry, wall)
        and isinstance(entry.get("secret"), str)
        and all(_is_whole(entry.get(name, "0")) for name in ("cached_at", "refresh_on"))
    )


def is_from_the_future(entry: Entry, wall: float) -> bool:
    """Return whether a machine whose clock is ahead of ours wrote an access token, which would seem to live longer."""
    cached_at = entry.get("cached_at", "0")
    return _is_whole(cached_at) and int(cached_at) > wall + _SKEW


def is_over(key: Key, entry: Entry, wall: float) -> bool:
    """Return whether an entry is an access token that has expired."""
    return key[0] == _ACCESS_TOKEN and _ends(entry) <= wall


def _is_whole(value: object) -> bool:
    return isinstance(value, (str, int)) and str(value).isdecimal()


def stored_token(token: Token, fence: int = 0) -> StoredToken:
    """Make of a token what can be written down, with the fence of the lease under which it was obtained."""
    return StoredToken(
        secret=token.secret,
        token_type=token.token_type,
        obtained_on=token.obtained_on,
        life=token.life,
        due_after=token.due_after,
        refresh_on=token.refresh_on,
        extras=dict(token.extras),
        fence=fence,
    )


def token_key(request: TokenRequest) -> str:
    """Name a request's token within its partition, by all that tells it from others; nothing in there is a secret."""
    return json.dumps(_members(request), separators=(",", ":"))


def new_name() -> str:
    """Make up the name of a sign-in, or of a removal."""
    return secrets.token_hex(8)


def encode(user_record: UserRecord, name: str) -> bytes:
    """Write a partition down under its name, for a store that seals it."""
    kinds: dict[str, dict[str, Entry]] = {}
    for (kind, key), entry in user_record.entries.items():
        kinds.setdefault(kind, {})[key] = entry
    tokens = {key: [getattr(t, name) for name in StoredToken.__slots__] for key, t in user_record.tokens.items()}
    body = {
        "of": name,
        "born": user_record.born,
        "entries": kinds,
        "tokens": tokens,
        "spent": user_record.spent,
        "removed": user_record.removed,
        "removed_on": user_record.removed_on,
        "fence": user_record.fence,
        "named_on": user_record.named_on,
    }
    return json.dumps(body, separators=(",", ":")).encode()


def decode(value: bytes, version: str, name: str) -> UserRecord | None:
    """Read a partition; None for what isn't one, or is another application's or user's than `name` says."""
    try:
        body = json.loads(value)
        if body["of"] != name:
            return None
        return UserRecord(
            born=str(body["born"]),
            entries={(kind, key): dict(e) for kind, es in body["entries"].items() for key, e in es.items()},
            tokens={str(key): _token(fields) for key, fields in body["tokens"].items()},
            spent=tuple(str(mark) for mark in body["spent"]),
            removed=bool(body["removed"]),
            removed_on=finite(body["removed_on"]),
            fence=whole(body.get("fence", 0)),
            named_on=finite(body.get("named_on", 0.0)),
            version=version,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _token(fields: Any) -> StoredToken:
    secret, token_type, obtained_on, life, due_after, refresh_on, extras, *fence = fields
    return StoredToken(
        secret=str(secret),
        token_type=str(token_type),
        obtained_on=finite(obtained_on),
        life=finite(life),
        due_after=finite(due_after),
        refresh_on=None if refresh_on is None else whole(refresh_on),
        extras=dict(extras),
        fence=whole(fence[0]) if fence else 0,
    )


def merge(
    stored: UserRecord | None,
    born: str,
    changes: Mapping[Key, Change],
    tokens: Mapping[str, StoredToken | Dropped],
    *,
    anew: SignIn | None,
    fence: int = 0,
) -> UserRecord | None:
    """Bring what this process did together with what other processes wrote meanwhile.

    Args:
        stored: What the store holds now.
        born: The sign-in that this process knows of.
        changes: Of MSAL's entries.
        tokens: Access tokens that this process obtained, or dropped.
        anew: The sign-in of which this is; it begins a partition where the account was removed before it. None where it
            is of none.
        fence: That of the lease under which the changes were obtained; 0 for none. What somebody else wrote under a
            later one isn't overwritten, whatever the clocks say.

    Returns:
        What to write; None where the account was removed, or removed and signed in again, by somebody else: what this
        process holds belongs to the past.
    """
    if stored is None or (stored.removed and anew is not None and anew.follows(stored)):
        version = None if stored is None else stored.version
        stored = UserRecord(born, version=version)
    elif stored.removed or (stored.born != born and anew is None):
        return None
    entries, spent = dict(stored.entries), dict.fromkeys(stored.spent)
    late = 0 < fence < stored.fence
    for key, change in changes.items():
        theirs = entries.get(key)
        if change.new is None:
            # A refresh token that was refused must not take its successor along.
            if theirs is not None and (change.old is None or theirs.get("secret") == change.old.get("secret")):
                del entries[key]
        elif theirs is None or not _newer(theirs, change, spent, late=late):
            entries[key] = change.new
            if key[0] == _REFRESH_TOKEN:
                replaced = {_mark(entry) for entry in (change.old, theirs) if entry is not None}
                spent.update(dict.fromkeys(sorted(replaced - {_mark(change.new)})))
    merged = dict(stored.tokens)
    for name, token in tokens.items():
        held = merged.get(name)
        if isinstance(token, Dropped):
            if held is not None and held.secret == token.secret:
                del merged[name]
            continue
        # The later one, not the longer-lived one: that may be the one that an API has refused.
        if held is None or not _is_later(held, token):
            merged[name] = token
    spent_last = tuple(spent)[-_MOST_SPENT:]
    return replace(stored, entries=entries, tokens=merged, spent=spent_last, fence=max(stored.fence, fence))


def _mark(entry: Entry) -> str:
    return fingerprint(str(entry.get("secret")))


def _is_later(held: StoredToken, token: StoredToken) -> bool:
    """Return whether a stored token was obtained after another one: by their leases, else by the clocks."""
    if held.fence and token.fence and held.fence != token.fence:
        return held.fence > token.fence
    return held.obtained_on > token.obtained_on


def _newer(theirs: Entry, change: Change, spent: Mapping[str, object], *, late: bool) -> bool:
    """Return whether somebody else's entry is later than both ours and the one that ours came from."""
    new = change.new or {}
    if theirs.get("secret") != new.get("secret") and _mark(new) in spent:
        return True
    if change.old is not None and theirs.get("secret") == change.old.get("secret"):
        return False
    return late or stamp_of(theirs) > stamp_of(new)


def stamp_of(entry: Entry) -> int:
    """Return when an entry was obtained, in whole seconds since the epoch; 0 where it doesn't say."""
    return _seconds(entry.get("last_modification_time") or entry.get("cached_at"))


def prune(user_record: UserRecord, wall: float, grace: float, most: int) -> UserRecord:
    """Leave out tokens that are of no use any more, and the shortest-lived where there are more than `most`."""
    entries = {k: e for k, e in user_record.entries.items() if k[0] != _ACCESS_TOKEN or _ends(e) + grace > wall}
    living = {k: t for k, t in user_record.tokens.items() if t.obtained_on + t.life + grace > wall}
    if len(living) > most:
        longest = sorted(living, key=lambda k: living[k].obtained_on + living[k].life)[-most:]
        living = {k: living[k] for k in longest}
    return replace(user_record, entries=entries, tokens=living)


def _ends(entry: Entry) -> int:
    return _seconds(entry.get("expires_on"))


def _seconds(value: Any) -> int:
    try:
        return int(value or 0)
    except (TypeError, ValueError, OverflowError):
        return 0


def seconds_worth_keeping(user_record: UserRecord, wall: float, grace: float) -> float:
    """Return for how long a store should keep a partition."""
    if user_record.removed:
        return TOMBSTONE_LIFE
    if any(kind in (_REFRESH_TOKEN, "Account") for kind, _ in user_record.entries):
        return _REFRESH_TOKEN_LIFE
    ends = max((t.obtained_on + t.life for t in user_record.tokens.values()), default=wall)
    return max(60.0, ends + grace - wall)
