"""What a token says that its bearer must prove: the `cnf` claim (RFC 7800, section 3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ..errors import InvalidToken

__all__ = ["CERTIFICATE", "DPOP", "Confirmation", "confirmation_in"]

#: The members that can be verified: the thumbprint of a proof's key (RFC 9449, section 6.1), and that of a client's
#: certificate (RFC 8705, section 3.1).
DPOP: Final = "jkt"
CERTIFICATE: Final = "x5t#S256"
#: SHA-256 in base64url.
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Thumbprints of what a token is bound to; where there are two, both must be shown."""

    key: str | None
    certificate: str | None


def confirmation_in(cnf: object, verified: frozenset[str]) -> Confirmation:
    """Read a `cnf` claim.

    Args:
        cnf: The claim.
        verified: Its members that the owner has verified.

    Raises:
        InvalidToken: It has another member, none, or one that is no thumbprint.
    """
    if not isinstance(cnf, dict) or not cnf or not verified.issuperset(cnf):
        raise InvalidToken("sender_constrained", "the token is bound to a key in a way that isn't verified here")
    for thumbprint in cnf.values():
        if not isinstance(thumbprint, str) or _THUMBPRINT.fullmatch(thumbprint) is None:
            raise InvalidToken("malformed", "the token's cnf isn't a thumbprint")
    return Confirmation(cnf.get(DPOP), cnf.get(CERTIFICATE))
