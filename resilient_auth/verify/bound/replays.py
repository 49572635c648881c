"""Proofs that were seen: each is good once, for as long as it would be good at all (RFC 9449, section 11.1)."""

from __future__ import annotations

import hashlib
import heapq
import threading
from collections import Counter

from ..._process import forks

__all__ = ["Full", "Replays", "name_of"]

#: The share of the places that one key may take, so that one client's flood leaves room for the others.
_SHARE = 4


class Full(Exception):
    """Say that a proof can't be remembered; its text tells whose places are taken."""


class Replays:
    """Remember proofs of this process, bounded in number: what is still good is never forgotten for a new one.

    Args:
        most: How many, at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._of_one = max(1, most // _SHARE)
        self.after_fork()
        forks.renew_in_children(self)

    def after_fork(self) -> None:
        """Begin empty: at first, and in a forked child, whose copy may be half changed."""
        self._lock = threading.Lock()
        #: When each isn't good any more.
        self._seen: dict[bytes, float] = {}
        #: By when they end: the time, the proof, its key; those that were forgotten before too.
        self._ends: list[tuple[float, bytes, str]] = []
        self._keys: Counter[str] = Counter()

    def first(self, proof: bytes, key: str, *, now: float, until: float) -> bool:
        """Note a proof; return whether it is seen for the first time.

        Args:
            proof: Names it.
            key: The thumbprint of its key.
            now: The monotonic time.
            until: When it isn't good any more, whether it was seen or not.

        Raises:
            Full: It can't be noted.
        """
        with self._lock:
            while self._ends and self._ends[0][0] <= now:
                ended, over, owner = heapq.heappop(self._ends)
                if self._seen.get(over) == ended:
                    self._drop(over, owner)
            if proof in self._seen:
                return False
            if self._keys[key] >= self._of_one:
                raise Full("this client has sent too many DPoP proofs")
            if len(self._seen) >= self._most:
                raise Full("too many DPoP proofs are remembered")
            self._seen[proof] = until
            self._keys[key] += 1
            heapq.heappush(self._ends, (until, proof, key))
            return True

    def forget(self, proof: bytes, key: str) -> None:
        """Take a note back of a proof with which nobody was let in."""
        with self._lock:
            if proof in self._seen:
                self._drop(proof, key)
            if len(self._ends) > 2 * len(self._seen):
                self._ends = sorted(end for end in self._ends if self._seen.get(end[1]) == end[0])

    def _drop(self, proof: bytes, key: str) -> None:
        del self._seen[proof]
        self._keys[key] -= 1
        if self._keys[key] <= 0:
            del self._keys[key]

    def __len__(self) -> int:
        return len(self._seen)


def name_of(key: str, token_id: str) -> bytes:
    """Name a proof by its key and its `jti`."""
    return hashlib.sha256(f"{key} {token_id}".encode()).digest()
