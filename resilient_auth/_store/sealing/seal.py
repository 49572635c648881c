"""How a value is sealed: AES-256-GCM (NIST SP 800-38D) under a random 96-bit nonce, bound to where it belongs.

    magic "RAS" · schema 1 byte · key id 8 bytes · nonce 12 bytes │ ciphertext and tag

All of the header is authenticated, and so are the store's purpose, owner and place, the record's kind and the key that
it is kept under: what was moved, renamed, copied to another store or edited doesn't open.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .keys import SealingKey, framed

__all__ = ["LONGEST_TTL", "NOT_OURS", "SCHEMA", "Sealer", "UnsealableError"]

SCHEMA = 1
LONGEST_TTL = 10 * 366 * 86_400.0
#: Verdicts on a record that say nothing against it: another process may well open it.
NOT_OURS = ("unknown_key", "newer_schema")
_MAGIC = b"RAS"
_HEADER = len(_MAGIC) + 1 + 8 + 12
_TAG = 16


class UnsealableError(Exception):
    """A value that can't be verified; `reason` is the code in `StoreRejected`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Sealer:
    """Seal with the first of some keys, open with any of them.

    Args:
        keys: The first seals.
        bound_to: What the values belong to: purpose, owner, place.
    """

    #: Bytes that sealing adds.
    OVERHEAD = _HEADER + _TAG

    def __init__(self, keys: Sequence[SealingKey], bound_to: Sequence[str]) -> None:
        self.keys = tuple(keys)
        self.bound_to = tuple(bound_to)
        self._ciphers: dict[tuple[bytes, str], AESGCM] = {}

    def seal(self, kind: str, key: str, value: bytes, *, by: SealingKey | None = None) -> bytes:
        """Seal a value of a kind, to be kept under a key of the medium's."""
        sealing = by or self.keys[0]
        nonce = os.urandom(12)
        header = _MAGIC + bytes((SCHEMA,)) + sealing.id + nonce
        return header + self._cipher(sealing, kind).encrypt(nonce, value, self._context(header, kind, key))

    def open(self, kind: str, key: str, sealed: bytes) -> bytes:
        """Open what was sealed for this kind and key.

        Raises:
            UnsealableError: It is malformed, of a newer schema, sealed with a key that isn't at hand, or edited.
        """
        if len(sealed) < self.OVERHEAD or sealed[:3] != _MAGIC or sealed[3] < 1:
            raise UnsealableError("malformed")
        if sealed[3] > SCHEMA:
            raise UnsealableError("newer_schema")
        header, body = sealed[:_HEADER], sealed[_HEADER:]
        for candidate in self.keys:
            if candidate.id == header[4:12]:
                try:
                    return self._cipher(candidate, kind).decrypt(header[12:], body, self._context(header, kind, key))
                except InvalidTag:
                    raise UnsealableError("edited") from None
        raise UnsealableError("unknown_key")

    @staticmethod
    def sealed_by(sealed: bytes) -> bytes:
        """Return the id of the key that sealed a value."""
        return sealed[4:12]

    def _cipher(self, key: SealingKey, kind: str) -> AESGCM:
        found = self._ciphers.get((key.id, kind))
        if found is None:
            found = AESGCM(key.derive("seal", *self.bound_to[:2], kind))
            if len(self._ciphers) < 256:
                self._ciphers[key.id, kind] = found
        return found

    def _context(self, header: bytes, kind: str, key: str) -> bytes:
        return header + framed((*self.bound_to, kind, key))
