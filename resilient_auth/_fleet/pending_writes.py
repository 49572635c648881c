"""What an application knows of one partition of the store, and what it has still to write there."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field

from .user_record import TOMBSTONE_LIFE, Change, Dropped, Key, StoredToken, UserRecord

__all__ = ["PendingWrites", "Place", "new_name"]

#: Seconds after which a sign-in that couldn't be written is compared with removals that others have written.
_LATE = 2.0
#: Whose partition one is: a home account or an assertion, or the scopes of tokens of the application's own.
Place = str | tuple[str, ...]


def new_name() -> str:
    """Make up the name of a sign-in."""
    return secrets.token_hex(8)


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
    anew: bool = False
    #: The sign-in is one that was found in a cache of MSAL's, which may be older than a removal.
    imported: bool = False
    erase: bool = False
    #: That the erasure couldn't be made at once has been told.
    postponed: bool = False
    #: The account entries of which the names are to be forgotten with the erasure.
    names: dict[Key, Change] = field(default_factory=dict)
    #: When the account was last signed in here, and when it was removed, in seconds since the epoch.
    changed_on: float = 0.0
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
        self.recent, self.erase, self.postponed, self.anew, self.fence = None, False, False, False, 0

    def anew_since(self, wall: float, *, own: bool) -> float:
        """Return the time of a sign-in that is to be written, for `merge`; 0 where there was none.

        Written at once it counts whatever the clocks say; late, it may be older than a removal elsewhere.
        """
        if not self.anew:
            return 0.0
        late = self.imported or wall - self.changed_on > _LATE
        return self.changed_on if late and not own else math.inf

    def signed_in(self, wall: float) -> None:
        """Note that a user has just signed in, or that the application has got a token for itself."""
        self.anew, self.imported, self.changed_on = True, False, wall

    def found(self, since: float) -> None:
        """Note that a user's entries were found in a cache of MSAL's, the latest one obtained at that time."""
        if not self.anew:
            # Something isn't nothing: entries without a time may go where nobody has been removed.
            self.anew, self.imported, self.changed_on = True, True, max(1.0, since)

    def is_over(self, user_record: UserRecord | None, wall: float) -> bool:
        """Return whether what is held of a user is another sign-in's, or too old for a removal of it to be known still.

        Args:
            partition: What the store holds now.
            wall: Seconds since the epoch.
        """
        if not self.keys:
            return False
        if user_record is None:
            return wall - self.seen_on > TOMBSTONE_LIFE
        return self.born != user_record.born
