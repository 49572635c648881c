"""Read what a 401 asks for (RFC 9110, section 11.6.1; continuous access evaluation, G17).

Claims are read strictly: a text that isn't exactly what it should be asks for none. What surrounds them is read as real
services write it, with addresses that aren't quoted (Dataverse, Outlook, Azure DevOps) and blanks for commas (Storage).
Anything else is a plain 401.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["Challenge", "claims_in", "parse_challenges", "read"]

#: Characters; no claims challenge comes near, and JSON of this size can't hurt.
LARGEST_HEADER = 16_384

_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = r'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e\x80-\U0010ffff])*)"'
_END = r"[ \t]*(?=,|\Z)"
#: An address as it is: whatever holds neither blanks nor commas nor quotes.
_BARE = r"[!#-+\--<>-~][!#-+\--~]*"
_PARAMETER = re.compile(rf"({_NAME})[ \t]*=[ \t]*(?:{_QUOTED}|({_BARE}))(?=[ \t,]|\Z)")
_SCHEME = re.compile(rf"({_NAME})(?: +|{_END})")
_TOKEN68 = re.compile(rf"[A-Za-z0-9\-._~+/]+=*{_END}")
_SEPARATORS = re.compile(r"[ \t,]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*|[A-Za-z0-9\-_]*", re.ASCII)


@dataclass(slots=True)
class Challenge:
    """One scheme with its parameters, whose names are in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def read(headers: Iterable[str]) -> str | None:
    """Return the claims that the `WWW-Authenticate` headers of a 401 ask for, as JSON; None for a plain 401.

    Args:
        headers: Each header's value; one header may hold several challenges. The first `Bearer` challenge counts whose
            `error` is `insufficient_claims`; in a header that can't be made out, none does.
    """
    for header in headers:
        try:
            for challenge in parse_challenges(header):
                claims = claims_in(challenge)
                if claims is not None:
                    return claims
        except ValueError:
            continue
    return None


def claims_in(challenge: Challenge) -> str | None:
    """Return the claims that a challenge asks for, as JSON; None when it asks for none.

    Raises:
        ValueError: It says that claims are missing, and not which.
    """
    if challenge.scheme.lower() != "bearer" or challenge.parameters.get("error") != "insufficient_claims":
        return None
    text = _decoded(challenge.parameters.get("claims", ""))
    try:
        claims = json.loads(text)
    except RecursionError as error:
        raise ValueError("claims nested too deeply") from error
    if not isinstance(claims, dict) or not claims:
        raise ValueError("claims must be a JSON object that asks for something")
    return text


def parse_challenges(header: str) -> Iterator[Challenge]:
    """Read one header's challenges, in order.

    Raises:
        ValueError: It isn't a list of challenges, a parameter is there twice, or it is too long.
    """
    if len(header) > LARGEST_HEADER:
        raise ValueError(f"a header of more than {LARGEST_HEADER} characters")
    found: list[Challenge] = []
    takes_parameters = False
    position = _past(_SEPARATORS, header, 0)
    while position < len(header):
        parameter = _PARAMETER.match(header, position)
        if parameter and takes_parameters:
            name, quoted, token = parameter.groups()
            if name.lower() in found[-1].parameters:
                raise ValueError(f"the parameter {name} is there twice")
            found[-1].parameters[name.lower()] = token if quoted is None else _ESCAPE.sub(r"\1", quoted)
            position = parameter.end()
        else:
            scheme = _SCHEME.match(header, position)
            if scheme is None:
                raise ValueError("neither a scheme nor a parameter")
            found.append(Challenge(scheme[1]))
            position = scheme.end()
            takes_parameters = True
            if position < len(header) and header[position] != ",":
                if _PARAMETER.match(header, position):
                    continue
                takes_parameters = False
                position = _past(_TOKEN68, header, position)
        position = _past(_SEPARATORS, header, position)
    return iter(found)


def _past(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    if match is None:
        raise ValueError("neither parameters nor a token68 behind a scheme")
    return match.end()


def _decoded(text: str) -> str:
    """Decode base64 or base64url, with its padding or without."""
    bare = text.rstrip("=")
    if not bare or _BASE64.fullmatch(bare) is None:
        raise ValueError("claims that aren't base64")
    padding = len(text) - len(bare)
    if padding and (len(text) % 4 or padding > 2):
        raise ValueError("claims with the wrong padding")
    try:
        return base64.urlsafe_b64decode(bare.replace("+", "-").replace("/", "_") + "=" * (-len(bare) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("claims that aren't base64 of UTF-8") from error
