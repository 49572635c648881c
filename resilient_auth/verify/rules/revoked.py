"""Which tokens are worthless since a time: those that were issued to a user, or in a session, up to then.

Unlike an entry of the deny-list, which holds until it is taken off, this lets a user in again who signs in again.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Final, Literal

from ..claims import Claims

__all__ = ["Revocation", "Revoked", "What", "plain_id"]

#: How many are held; beyond it an issuer's oldest one becomes one for all that the issuer gave up to then.
_MOST: Final = 100_000
#: A GUID as people, portals and scripts write it.
_GUID = re.compile(
    r"(?:urn:uuid:)?[{(]?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})[)}]?",
    re.ASCII | re.IGNORECASE,
)
#: Blanks that `str.strip` leaves, and that come along when something is copied from a page.
_INVISIBLE: Final = "\u200b\u2060\ufeff"

What = Literal["sub", "sid", "oid", "mail"]


@dataclass(frozen=True, slots=True)
class Revocation:
    """What was issued up to a time is worth nothing.

    Args:
        what: Whose: a user's by `sub`, `oid` or address, or a session's by `sid`.
        where: The issuer; the tenant's GUID for an `oid`.
        id: The user's, or the session's.
        before: Seconds since the epoch.
        until: When all of it has expired, and this may be forgotten.
    """

    what: What
    where: str
    id: str = field(repr=False)
    before: float
    until: float

    @property
    def name(self) -> str:
        """Return what it is known by."""
        return _name(self.what, self.where, self.id)


class Revoked:
    """Hold revocations, bounded in number. Whoever changes it holds a lock; looking takes none."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, tuple[float, float, str]] = OrderedDict()
        #: By issuer or tenant: all that was issued up to then, since there were too many to tell apart.
        self._all: dict[str, float] = {}

    def add(self, one: Revocation, now: float) -> bool:
        """Take one in; return whether it refuses more than before."""
        known = self._until.get(one.name)
        if known is not None and known[0] >= one.before:
            return False
        self._until[one.name] = (one.before, one.until, one.where)
        self._until.move_to_end(one.name)
        while self._until and next(iter(self._until.values()))[1] <= now:
            self._until.popitem(last=False)
        if len(self._until) > _MOST:
            before, _, where = self._until.popitem(last=False)[1]
            self._all[where] = max(before, self._all.get(where, -inf))
        return True

    def match(self, claims: Claims) -> str:
        """Return `revoked` for a token that is worth nothing any more, else ""; one that doesn't say its age is old."""
        if not self._until and not self._all:
            return ""
        # A time in whole seconds says nothing about what came first within one: both count as before.
        issued = -inf if claims.issued_at is None else claims.issued_at
        for name in _names(claims):
            known = self._until.get(name)
            if known is not None and issued <= known[0]:
                return "revoked"
        whole = any(issued <= self._all.get(where, -inf) for where in (claims.issuer, claims.tenant_id) if where)
        return "revoked" if whole else ""

    def __len__(self) -> int:
        return len(self._until)


def _names(claims: Claims) -> Iterator[str]:
    issuer = claims.issuer
    yield _name("sub", issuer, claims.subject)
    if claims.session_id:
        yield _name("sid", issuer, claims.session_id)
    if claims.object_id and claims.tenant_id:
        yield _name("oid", claims.tenant_id, claims.object_id)
    for address in {claims.username, claims.raw.get("email")}:
        if isinstance(address, str) and "@" in address:
            yield _name("mail", issuer, address)


def _name(what: What, where: str, id_: str) -> str:
    """Return what a user or a session is known by, however their ids are written."""
    if what == "mail":
        return f"{what} {where} {id_.strip().lower()}"
    return f"{what} {plain_id(where) if what == 'oid' else where} {plain_id(id_)}"


def plain_id(value: str) -> str:
    """Return the one spelling in which ids are compared: without blanks around, a GUID in lower case with hyphens."""
    bare = value.strip().strip(_INVISIBLE).strip()
    guid = _GUID.fullmatch(bare)
    return bare if guid is None else "-".join(guid.groups()).lower()
