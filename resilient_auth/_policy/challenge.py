"""Claims challenges: which are the same, and what two of them ask for together (G17)."""

from __future__ import annotations

import json

__all__ = ["IN_VAIN_FOR", "claims_together", "same_claims"]

#: Seconds in which no new token is asked for after a new one was refused as well: the challenge has come again although
#: it was met, and it isn't the token.
IN_VAIN_FOR = 30.0


def same_claims(claims: str) -> str:
    """Write claims, a JSON object, in one way, so that those which ask for the same are equal."""
    return json.dumps(json.loads(claims), sort_keys=True)


def claims_together(first: str, second: str) -> str:
    """Return what asks for all that two challenges ask for; where they differ about one claim, the second holds.

    Each is a JSON object of tokens, and each of these one of claims (OpenID Connect Core, section 5.5). Of what isn't
    that nothing can be said: the second is given on as it is.
    """
    try:
        one, other = json.loads(first), json.loads(second)
        for token, wanted in other.items():
            before = one.get(token)
            one[token] = {**before, **wanted} if isinstance(before, dict) and isinstance(wanted, dict) else wanted
    except (ValueError, AttributeError, RecursionError):
        return second
    return json.dumps(one)
