"""What a discovery document and a key set say, taken from them strictly and bounded."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypeGuard

from ..._policy.checks import is_path
from ...errors import ConfigurationError
from ..errors import InvalidToken
from ..jose.compact import LONGEST_KID, strict_json
from ..jose.jwk import UnusableKey, VerificationKey, verification_key
from ..trust import Trust, host_of, is_address

__all__ = ["Facts", "FoundKeys", "UnusableDocument", "facts_in", "keys_in", "pinned_from", "read_owners"]


class UnusableDocument(ValueError):
    """Say why a document can't be used."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is used of a discovery document."""

    jwks_uri: str
    #: None where it has none, or none that may be asked.
    token_endpoint: str | None
    #: The tenant that stands in its issuer.
    tenant: str | None
    #: Where users sign out; None as for `token_endpoint`.
    end_session_endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class FoundKeys:
    """The keys of a set that can be used, and why the others can't."""

    usable: Mapping[str, VerificationKey]
    refused: tuple[str, ...]
    #: The `kid`s of those others: these keys are there, and no token is verified with them.
    unfit: frozenset[str]


def facts_in(text: str, trust: Trust, hosts: frozenset[str]) -> Facts:
    """Read a discovery document.

    Args:
        text: The document.
        trust: What is expected of it.
        hosts: Those that it may name, next to the trust's.

    Raises:
        UnusableDocument: It is another issuer's, or would lead elsewhere.
    """
    body = _json(text)
    expected, tenant = trust.named_by(body.get("issuer"))
    if not expected:
        raise UnusableDocument("its issuer isn't the one that is trusted")
    if trust.templated and not trust.any_tenant and tenant is None:
        raise UnusableDocument("its issuer names no tenant")
    hosts |= trust.hosts_for(tenant)
    keys = body.get("jwks_uri")
    if not _is_allowed(keys, hosts, trust):
        raise UnusableDocument("its jwks_uri isn't an https address on a host that is allowed")
    token = body.get("token_endpoint")
    out = body.get("end_session_endpoint")
    return Facts(
        keys,
        token if _is_allowed(token, hosts, trust) else None,
        tenant,
        out if _is_allowed(out, hosts, trust) else None,
    )


def keys_in(text: str, algorithms: frozenset[str], most: int) -> FoundKeys:
    """Read a key set (RFC 7517, section 5).

    Args:
        text: The document.
        algorithms: Those that keys are wanted for.
        most: Keys in it, at most.

    Raises:
        UnusableDocument: It isn't a key set, or has too many keys.
    """
    listed = _json(text).get("keys")
    if not isinstance(listed, list):
        raise UnusableDocument("it has no list of keys")
    if len(listed) > most:
        raise UnusableDocument(f"it has {len(listed)} keys, and {most} are allowed")
    usable: dict[str, VerificationKey] = {}
    refused: list[str] = []
    unfit: set[str] = set()
    twice: set[str] = set()
    for jwk in listed:
        kid = jwk.get("kid") if isinstance(jwk, dict) else None
        if not isinstance(kid, str) or not 0 < len(kid) <= LONGEST_KID:
            refused.append("a key without a kid")
            continue
        try:
            key = verification_key(jwk, algorithms)
        except UnusableKey as error:
            refused.append(f"{_shown(kid)}: {error}")
            # Without a type it is no key at all (RFC 7517, section 4.1), and the set a broken one.
            if isinstance(jwk.get("kty"), str):
                unfit.add(kid)
            continue
        known = usable.get(kid)
        both = key if known is None else known.joined(key)
        if both is None:
            twice.add(kid)
        usable[kid] = both or key
    for kid in twice:
        del usable[kid]
        refused.append(f"{_shown(kid)}: two keys have it")
    return FoundKeys(usable, tuple(refused), frozenset((unfit | twice) - usable.keys()))


def pinned_from(
    given: str | PathLike[str] | Mapping[str, Any], algorithms: frozenset[str], largest: int, most: int
) -> Mapping[str, VerificationKey]:
    """Read the owner's pinned key set.

    Raises:
        ConfigurationError: It can't be read, or one of its keys can't be used: a pinned file has no bad keys.
    """
    if not isinstance(given, Mapping) and not is_path(given):
        raise ConfigurationError(
            f"pinned_keys must be the path of a key set, or a mapping like one, not {type(given).__name__}"
        )
    try:
        raw = json.dumps(dict(given)).encode() if isinstance(given, Mapping) else read_owners(given, largest)
        found = keys_in(raw.decode(), algorithms, most)
    except ConfigurationError:
        raise
    except (OSError, TypeError, ValueError) as error:
        raise ConfigurationError(f"pinned_keys can't be used: {error}") from None
    if found.refused or not found.usable:
        raise ConfigurationError(f"pinned_keys can't be used: {(found.refused or ('there is no key',))[0]}")
    return found.usable


def read_owners(path: str | PathLike[str], largest: int) -> bytes:
    """Read a file in which an owner says whom to trust.

    Raises:
        OSError: It can't be read.
        ValueError: It is too large, or others may write it.
    """
    with open(path, "rb") as stream:
        # Windows has no such modes.
        if os.name == "posix" and os.fstat(stream.fileno()).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"others may write it: chmod go-w {os.fspath(path)}")
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it is larger than {largest} bytes")
    return content


def _json(text: str) -> dict[str, Any]:
    try:
        return strict_json(text.encode(), "document")
    except (InvalidToken, UnicodeError):
        raise UnusableDocument("it isn't a JSON object, or not a strict one") from None


def _is_allowed(url: object, hosts: frozenset[str], trust: Trust) -> TypeGuard[str]:
    # What came over https leads to nothing else.
    return is_address(url, trust.plain) and host_of(url) in hosts


def _shown(kid: str) -> str:
    return "".join(c if (c.isalnum() and c.isascii()) or c in "-_.:@" else "?" for c in kid[:64])
