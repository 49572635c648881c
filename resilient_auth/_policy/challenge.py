"""A claims challenge that comes again although it was met: asking the provider once more won't help (G17)."""

from __future__ import annotations

import json

__all__ = ["IN_VAIN_FOR", "same_claims"]

#: Seconds in which no new token is asked for after a new one was refused as well: it isn't the token.
IN_VAIN_FOR = 30.0


def same_claims(claims: str) -> str:
    """Write claims, a JSON object, in one way, so that those which ask for the same are equal."""
    return json.dumps(json.loads(claims), sort_keys=True)
