"""Strict token text: what isn't exactly a signed token in compact form (RFC 7515, section 3.1) gets no further.

Nothing that a token carries is trusted here, or followed: keys and addresses in its header (`jwk`, `jku`, `x5c`,
`x5u`) are ignored.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64
from collections.abc import Mapping
from dataclasses import dataclass
from math import isinf
from typing import Any, Final

from ..errors import InvalidToken

__all__ = [
    "LARGEST_TOKEN",
    "LONGEST_KID",
    "Compact",
    "NotStrict",
    "Text",
    "check_header",
    "decode_segment",
    "json_object",
    "strict_json",
    "take_apart",
]

#: Characters; no server lets a longer header through.
LARGEST_TOKEN: Final = 32_768
_LARGEST_HEADER: Final = 4_096
LONGEST_KID: Final = 256
_DEEPEST: Final = 16

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
#: A string that never ends is taken to the end as well: one that wasn't would be tried anew at each of its quotes.
_STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STANDARD = bytes.maketrans(b"-_", b"+/")
#: By a segment's length modulo 4: its padding, and the last characters that have no bits left over.
_PADDING = (b"", b"", b"==", b"=")
_LAST = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")


@dataclass(slots=True, repr=False)
class Compact:
    """A token taken apart, of which nothing is verified."""

    header: dict[str, Any]
    payload: bytes
    #: What the signature is over.
    signed: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Text:
    """A token as it was read, strictly; nothing in it is verified."""

    compact: Compact
    algorithm: str
    kid: str | None
    raw: dict[str, Any]


def take_apart(token: str) -> Compact:
    """Take a token apart, with a strict header.

    Raises:
        InvalidToken: It isn't a signed token in compact form.
    """
    if not isinstance(token, str) or not token:
        raise InvalidToken("missing", "there is no token")
    if len(token) > LARGEST_TOKEN:
        raise InvalidToken("too_large", f"the token is longer than {LARGEST_TOKEN} characters")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        if token.isascii() and token.count(".") == 4:
            raise InvalidToken("encrypted", "the token is encrypted, and only signed ones are accepted")
        raise InvalidToken("malformed", "the token isn't three segments of base64url")
    header, payload, signature = (part.encode() for part in parts.groups())
    if len(header) > _LARGEST_HEADER:
        raise InvalidToken("too_large", f"the token's header is longer than {_LARGEST_HEADER} characters")
    return Compact(
        strict_json(decode_segment(header), "header"),
        decode_segment(payload),
        token[: parts.end(2)].encode(),
        decode_segment(signature),
    )


def decode_segment(segment: bytes) -> bytes:
    """Decode base64url without padding, of which there is one spelling alone.

    Raises:
        InvalidToken: It is spelled otherwise.
    """
    rest = len(segment) & 3
    if rest and segment[-1] not in _LAST[rest]:
        raise InvalidToken("malformed", "a segment of the token isn't base64url in its one spelling")
    return a2b_base64(segment.translate(_STANDARD) + _PADDING[rest])


class _Refused(ValueError):
    """Something that JSON as such would allow."""


class NotStrict(ValueError):
    """Say why a text isn't a JSON object that is read in one way alone; nothing of it is quoted."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("a member twice")
    return found


def _constant(text: str) -> None:
    raise _Refused("a number that isn't JSON")


def _whole(text: str) -> int:
    if len(text) > 20:
        raise _Refused("a number that is too long")
    return int(text)


def _fraction(text: str) -> float:
    value = float(text)
    if isinf(value):
        raise _Refused("a number that is too large")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_whole, parse_float=_fraction
)


def strict_json(raw: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object of a token, as `json_object` does.

    Args:
        raw: The text.
        what: What it is, for the message.

    Raises:
        InvalidToken: It isn't that.
    """
    try:
        return json_object(raw)
    except NotStrict as error:
        raise InvalidToken("malformed", f"the token's {what} {error}") from None


def json_object(raw: bytes) -> dict[str, Any]:
    """Read a JSON object: UTF-8, no member twice, no lone surrogates, numbers within reason, not nested deeply.

    Raises:
        NotStrict: It isn't that.
    """
    try:
        text = raw.decode()
        # More brackets than that are rare, and alone need a look at where they are.
        if text.count("{") + text.count("[") > _DEEPEST:
            _check_depth(text)
        value = _DECODER.decode(text)
        if "\\u" in text:
            # An escaped half of a pair is no character: text with it can't be written anywhere.
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise NotStrict("isn't UTF-8") from None
    except _Refused as refused:
        raise NotStrict(f"has {refused}") from None
    except (ValueError, RecursionError):
        raise NotStrict("isn't JSON") from None
    if not isinstance(value, dict):
        raise NotStrict("isn't a JSON object")
    return value


def _check_depth(text: str) -> None:
    """Refuse what is nested too deeply, before anything recurses: each round takes away the innermost brackets."""
    left = _STRINGS.sub("", text).encode().translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(_DEEPEST):
        left = left.replace(b"[]", b"")
    if b"[]" in left:
        raise _Refused("nested too deeply")
    if left:
        raise ValueError("brackets without their other half")


def check_header(header: Mapping[str, Any], types: frozenset[str]) -> tuple[str, str | None]:
    """Check a header, and return its algorithm and `kid`.

    Args:
        header: As it came.
        types: Values of `typ` that are accepted, in lower case and without `application/`.

    Raises:
        InvalidToken: It asks for what isn't supported (RFC 7515, section 4.1.11; RFC 7797; RFC 8725, section 3.11).
    """
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise InvalidToken("malformed", "the token's header names no algorithm")
    if "crit" in header:
        raise InvalidToken("critical_header", "the token's header has critical extensions, and none is understood")
    if header.get("b64", True) is not True:
        raise InvalidToken("critical_header", "the token's payload isn't encoded")
    if "enc" in header or "zip" in header:
        raise InvalidToken("encrypted", "the token's header is an encrypted or a compressed token's")
    if "cty" in header:
        raise InvalidToken("nested", "the token holds something else than claims, such as another token")
    kind = header.get("typ")
    if kind is not None and (not isinstance(kind, str) or kind.lower().removeprefix("application/") not in types):
        raise InvalidToken("type", "the token's header says that it is a token of another type")
    kid = header.get("kid")
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= LONGEST_KID):
        raise InvalidToken("malformed", "the token's kid isn't a text of a reasonable length")
    return algorithm, kid
