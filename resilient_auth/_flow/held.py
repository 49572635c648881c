"""What an application knows of one partition of the store, and what it has still to write there."""

from __future__ import annotations

import secrets

from .partition import TOMBSTONE_LIFE, Change, Key, Partition, StoredToken

__all__ = ["Held", "new_name"]


def new_name() -> str:
    """Make up the name of a sign-in."""
    return secrets.token_hex(8)


class Held:
    """What is known of one partition, and what isn't written yet."""

    __slots__ = (
        "anew",
        "born",
        "changed_on",
        "changes",
        "erase",
        "fence",
        "keys",
        "names",
        "over",
        "read",
        "recent",
        "seen_on",
        "tokens",
    )

    def __init__(self) -> None:
        self.born = new_name()
        #: Whether the store has ever told what is in there.
        self.read = False
        #: As it was read or written last, until it is needed.
        self.recent: Partition | None = None
        #: The entries that were put in MSAL's cache from there.
        self.keys: frozenset[Key] = frozenset()
        self.changes: dict[Key, Change] = {}
        self.tokens: dict[str, StoredToken] = {}
        #: That of the lease under which the changes were obtained; 0 for none.
        self.fence = 0
        self.anew = False
        self.erase = False
        #: The account entries of which the names are to be forgotten with the erasure.
        self.names: dict[Key, Change] = {}
        #: When the account was last removed or signed in here, in seconds since the epoch.
        self.changed_on = 0.0
        #: When the store was last known to hold something, in seconds since the epoch.
        self.seen_on = 0.0
        #: That the account was removed by another process has been followed.
        self.over = False

    @property
    def pending(self) -> bool:
        """Tell whether there is something to write."""
        return bool(self.changes or self.tokens or self.erase)

    def is_over(self, partition: Partition | None, wall: float) -> bool:
        """Tell whether what is held of a user is another sign-in's, or too old for a removal of it to be known still.

        Args:
            partition: What the store holds now.
            wall: Seconds since the epoch.
        """
        if not self.keys:
            return False
        if partition is None:
            return wall - self.seen_on > TOMBSTONE_LIFE
        return self.born != partition.born
