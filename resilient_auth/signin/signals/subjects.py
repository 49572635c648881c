"""Whom an event is about: subject identifiers (RFC 9493), and complex ones of Shared Signals."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from ..sign_out.ending import Whom

__all__ = ["UnusableSubject", "subject_in", "whom"]

_LONGEST: Final = 256
_MOST_ALIASES: Final = 10


class UnusableSubject(ValueError):
    """Say why a subject isn't one."""


def subject_in(claims: Mapping[str, Any], payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an event's subject: the token's `sub_id`, or what earlier drafts had within the event.

    Raises:
        UnusableSubject: There is none, or it is none.
    """
    subject = claims.get("sub_id", payload.get("subject"))
    if subject is None and isinstance(claims.get("sub"), str):
        # RISC's first form, where the token's own issuer knows the user by that.
        subject = {"format": "iss_sub", "iss": claims["iss"], "sub": claims["sub"]}
    if not isinstance(subject, Mapping):
        raise UnusableSubject("it names nobody")
    return subject


def whom(subject: Mapping[str, Any], issuers: Collection[str]) -> tuple[Whom, ...]:
    """Return whose sessions a subject means, at those issuers for whose users its sender may speak.

    Args:
        subject: As it came.
        issuers: These.

    Returns:
        None where it means something that has no sessions here: a phone number, a device.

    Raises:
        UnusableSubject: It isn't of the form that it says.
    """
    found: list[Whom] = []
    for issuer in issuers:
        one = Whom(issuer=issuer)
        for member, identifier in _members(subject):
            filled = _filled(one, member, identifier)
            if filled is None:
                # What is meant is narrower than what can be found: nobody is signed out for a guess.
                break
            one = filled
        else:
            if one.oid and not one.tenant:
                # An id that names a user by itself is the provider's `sub`.
                one = replace(one, subject=one.oid, oid=None)
            if one.names and _speaks_for(one):
                found.append(one)
    return tuple(found)


def _speaks_for(one: Whom) -> bool:
    """Return whether who speaks for an issuer may name a user by an object id: where the issuer is the tenant's.

    Such ids belong to no issuer, and would name the users of any.
    """
    return not one.oid or (one.tenant or "").lower() in urlsplit(one.issuer).path.lower().split("/")


def _members(subject: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    kind = _format(subject)
    if kind == "complex" or (kind is None and any(name in subject for name in ("user", "session"))):
        named = {name: value for name, value in subject.items() if name not in ("format", "subject_type")}
        if not named or not all(isinstance(value, Mapping) for value in named.values()):
            raise UnusableSubject("a member of it isn't a subject")
        # The tenant first: an object id is one within it.
        yield from sorted(named.items(), key=lambda member: member[0] != "tenant")
    elif kind is None:
        raise UnusableSubject("it has no format")
    else:
        yield "user", subject


def _format(subject: Mapping[str, Any]) -> str | None:
    kind = subject.get("format", subject.get("subject_type"))
    return kind.replace("-", "_") if isinstance(kind, str) else None


def _filled(one: Whom, member: str, identifier: Mapping[str, Any]) -> Whom | None:
    """Return who is meant with one more identifier; None where that can't be told."""
    kind = _format(identifier)
    if member == "tenant":
        return replace(one, tenant=_text(identifier, "id")) if kind == "opaque" else None
    if member == "session":
        return replace(one, sid=_text(identifier, "id")) if kind == "opaque" else None
    if member != "user":
        return None
    if kind == "aliases":
        return _by_alias(one, identifier)
    if kind == "iss_sub":
        subject, issuer = _text(identifier, "sub"), _text(identifier, "iss")
        return replace(one, subject=subject) if issuer == one.issuer else None
    if kind == "opaque":
        return replace(one, oid=_text(identifier, "id"))
    if kind == "email":
        return replace(one, mail=_address(_text(identifier, "email")))
    if kind == "account":
        return replace(one, mail=_address(_text(identifier, "uri").removeprefix("acct:")))
    return None


def _by_alias(one: Whom, identifier: Mapping[str, Any]) -> Whom | None:
    """Return who is meant by the first of several identifiers of one user that says it."""
    several = identifier.get("identifiers")
    if not isinstance(several, (list, tuple)) or not 0 < len(several) <= _MOST_ALIASES:
        raise UnusableSubject("its aliases aren't a list")
    for alias in several:
        if not isinstance(alias, Mapping) or _format(alias) == "aliases":
            raise UnusableSubject("an alias isn't a subject")
        filled = _filled(one, "user", alias)
        if filled is not None:
            return filled
    return None


def _text(identifier: Mapping[str, Any], name: str) -> str:
    value = identifier.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
        raise UnusableSubject(f"its {name} isn't a text of a reasonable length")
    return value


def _address(text: str) -> str:
    if "@" not in text:
        raise UnusableSubject("its address isn't one")
    return text.strip().lower()
