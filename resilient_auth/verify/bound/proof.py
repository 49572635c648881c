"""A proof of possession, pure: one signed statement about one request and one token (RFC 9449, section 4.3)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final
from urllib.parse import urlsplit

from jwt.utils import base64url_encode

from ..._policy.endpoint import origin_of
from ..errors import InvalidToken
from ..jose.compact import check_header, strict_json, take_apart
from ..jose.jwk import UnusableKey, verification_key

__all__ = ["Proof", "digest", "read_proof", "thumbprint_of"]

_TYPES: Final = frozenset({"dpop+jwt"})
_LARGEST: Final = 8_192
_LONGEST_ID: Final = 256
#: By type of key: the members that its thumbprint is made of (RFC 7638, section 3.2; RFC 8037, section 2).
_MEMBERS: Final = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_HEX: Final = frozenset("0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What is left to be judged of a proof that is good for its request, its token and its key."""

    #: Of its text, by the client, for its key.
    token_id: str
    issued_at: float
    nonce: str | None


def read_proof(
    values: Sequence[str], *, method: str, url: str, token: str, thumbprint: str, algorithms: frozenset[str]
) -> Proof:
    """Check all of a proof but its time, its nonce and whether it came before.

    Args:
        values: Every value of the request's `DPoP` header.
        method: The request's.
        url: The request's.
        token: The access token that it came with.
        thumbprint: That of the key to which the token is bound.
        algorithms: Those that are accepted.

    Raises:
        InvalidToken: It is none, or one for something else.
    """
    if len(values) != 1:
        raise _refused("the request must have one DPoP proof, in one header")
    if not isinstance(values[0], str) or len(values[0]) > _LARGEST:
        raise _refused(f"the DPoP proof is longer than {_LARGEST} characters")
    try:
        compact = take_apart(values[0])
        algorithm, _ = check_header(compact.header, _TYPES)
        said = strict_json(compact.payload, "payload")
    except InvalidToken:
        raise _refused("the DPoP proof isn't a signed token of its type") from None
    if "typ" not in compact.header or algorithm not in algorithms:
        raise _refused("the DPoP proof has no type, or an algorithm that isn't accepted")
    jwk = compact.header.get("jwk")
    if not isinstance(jwk, Mapping):
        raise _refused("the DPoP proof brings no key")
    try:
        key = verification_key(jwk, frozenset({algorithm}))
    except UnusableKey as error:
        raise _refused(f"the DPoP proof's key can't be used: {error}") from None
    if not compare_digest(thumbprint_of(jwk), thumbprint):
        raise _refused("the DPoP proof was made with another key than the token's")
    try:
        key.verify(algorithm, compact.signature, compact.signed)
    except InvalidToken:
        raise _refused("the DPoP proof's signature isn't its key's") from None
    return _judged(said, method, url, token)


def _judged(said: Mapping[str, Any], method: str, url: str, token: str) -> Proof:
    token_id, nonce = said.get("jti"), said.get("nonce")
    issued_at: Any = said.get("iat")
    if not isinstance(token_id, str) or not 0 < len(token_id) <= _LONGEST_ID:
        raise _refused("the DPoP proof's jti isn't a text of a reasonable length")
    if type(issued_at) not in (int, float):
        raise _refused("the DPoP proof's iat isn't a number")
    if nonce is not None and not isinstance(nonce, str):
        raise _refused("the DPoP proof's nonce isn't a text")
    if said.get("htm") != method:
        raise _refused("the DPoP proof is for another method")
    if not _is_same(said.get("htu"), url):
        raise _refused("the DPoP proof is for another address")
    hashed = said.get("ath")
    if not isinstance(hashed, str) or not compare_digest(hashed.encode(), digest(token.encode()).encode()):
        raise _refused("the DPoP proof is for another token")
    return Proof(token_id=token_id, issued_at=issued_at, nonce=nonce)


def thumbprint_of(jwk: Mapping[str, Any]) -> str:
    """Return the thumbprint of a key that was found good (RFC 7638)."""
    members = {name: jwk[name] for name in _MEMBERS[jwk["kty"]]}
    return digest(json.dumps(members, separators=(",", ":"), sort_keys=True).encode())


def _is_same(stated: object, url: str) -> bool:
    """Return whether two addresses are one, but for queries and fragments (RFC 9449, section 4.3)."""
    if not isinstance(stated, str) or not stated.isascii():
        return False
    wanted = _place(url)
    return wanted is not None and wanted == _place(stated)


def _place(url: str) -> tuple[str, str] | None:
    """Return an address's origin and path as they are compared (RFC 3986, section 6.2); None where it is none."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc or parts.port == 0:
            return None
        return origin_of(url), _plain(parts.path) or "/"
    except ValueError:
        return None


def _plain(path: str) -> str:
    """Write a path's escapes in their one form; one of a letter is that letter."""
    first, *rest = path.split("%")
    plain = [first]
    for part in rest:
        code = part[:2]
        letter = chr(int(code, 16)) if len(code) == 2 and _HEX.issuperset(code) else ""
        plain.append(letter + part[2:] if letter in _UNRESERVED else f"%{code.upper()}{part[2:]}")
    return "".join(plain)


def digest(data: bytes) -> str:
    """Return a SHA-256 hash as these standards write it."""
    return base64url_encode(hashlib.sha256(data).digest()).decode()


def _refused(message: str) -> InvalidToken:
    return InvalidToken("dpop_proof", message)
