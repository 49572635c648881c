"""What an application knows of one partition of the store, and what it has still to write there."""

from __future__ import annotations

from dataclasses import dataclass, field

from .user_record import TOMBSTONE_LIFE, Change, Dropped, Key, SignIn, StoredToken, UserRecord

__all__ = ["PendingWrites", "Place"]

#: Whose partition one is: a home account or an assertion, or the scopes of tokens of the application's own.
Place = str | tuple[str, ...]


@dataclass(slots=True, eq=False, repr=False)
class PendingWrites:
    """What is known of one partition, and what isn't written yet."""

    #: Names the sign-in that it is of.
    born: str
    #: Whether the store has told what is in there, and could still when it was asked last.
    read: bool = False
    #: As it was read or written last, until it is needed.
    recent: UserRecord | None = None
    #: The entries that were put in MSAL's cache from there.
    keys: frozenset[Key] = frozenset()
    changes: dict[Key, Change] = field(default_factory=dict)
    tokens: dict[str, StoredToken | Dropped] = field(default_factory=dict)
    #: That of the lease under which the changes were obtained; 0 for none.
    fence: int = 0
    #: The sign-in here that isn't written yet.
    sign_in: SignIn | None = None
    erase: bool = False
    #: That the erasure couldn't be made at once has been told.
    postponed: bool = False
    #: The account entries of which the names are to be forgotten with the erasure.
    names: dict[Key, Change] = field(default_factory=dict)
    #: Names the last removal of the account that is known here, by whichever process.
    known: str = ""
    #: Names the one made here, and when that was, in seconds since the epoch.
    removal: str = ""
    removed_on: float = 0.0
    #: Monotonic time before which it isn't written again, since the record can't be opened here.
    rests_until: float = 0.0
    #: When the store was last known to hold something, in seconds since the epoch.
    seen_on: float = 0.0
    #: That the account was removed by another process has been followed.
    over: bool = False

    @property
    def pending(self) -> bool:
        """Return whether there is something to write."""
        return bool(self.changes or self.tokens or self.erase)

    def forget(self) -> None:
        """Forget what isn't written yet: it is another process's to write."""
        self.changes, self.tokens, self.names = {}, {}, {}
        self.recent, self.erase, self.postponed, self.sign_in, self.fence = None, False, False, None, 0

    def signed_in(self, wall: float) -> None:
        """Note that a user has just signed in, or that the application has got a token for itself."""
        self.sign_in = SignIn(wall, self.known)

    def found(self, since: float) -> None:
        """Note that a user's entries were found in a cache of MSAL's, the latest one obtained at that time."""
        if self.sign_in is None:
            self.sign_in = SignIn(since, under_way=False)

    def is_late(self) -> None:
        """Note that nobody waits for a sign-in to be written any more: another process may remove the account now."""
        if self.sign_in is not None:
            self.sign_in.under_way = False

    def is_over(self, user_record: UserRecord | None, wall: float) -> bool:
        """Return whether what is held of a user is another sign-in's, or too old for a removal of it to be known still.

        Args:
            user_record: What the store holds now.
            wall: Seconds since the epoch.
        """
        if not self.keys:
            return False
        if user_record is None:
            return wall - self.seen_on > TOMBSTONE_LIFE
        return self.born != user_record.born
