"""Ask a caller for more than its token has: a claims challenge, or a plain 403 (continuous access evaluation, G17)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError
from .claims import Claims
from .errors import bearer_challenge
from .trust import authorization_uri as address_of_tenant

__all__ = ["claims_challenge"]


def claims_challenge(
    claims: Claims,
    required: Mapping[str, Any] | str,
    *,
    realm: str | None = None,
    authorization_uri: str | None = None,
) -> tuple[int, str]:
    """Answer a caller whose token is good and lacks claims, such as an authentication context.

    Only a client that declared `cp1` knows what to do with a challenge; another one would send the same token again
    for ever, so it gets 403.

    Args:
        claims: The verified token's.
        required: What is wanted, as OpenID Connect's `claims` parameter has it (Core, section 5.5):
            `{"access_token": {"acrs": {"essential": True, "value": "c1"}}}`, or the same as JSON. A word, such as
            `"c1"`, means that authentication context.
        realm: The protection space's name.
        authorization_uri: Where the client can get such a token; for tokens of Entra its tenant's own when not given.

    Returns:
        The status, 401 or 403, and the `WWW-Authenticate` header.

    Raises:
        ConfigurationError: `required` asks for nothing, or isn't JSON; or another argument is none.
    """
    if not isinstance(claims, Claims):
        raise ConfigurationError(f"claims must be what a verifier returned, not {type(claims).__name__}")
    asked = _asked(required)
    if not _declared(claims):
        refusal = {"error": "insufficient_scope", "error_description": "the token lacks required claims"}
        return 403, bearer_challenge(realm, refusal)
    place = authorization_uri or address_of_tenant(claims.issuer, claims.tenant_id)
    where = {} if place is None else {"authorization_uri": place}
    encoded = base64.b64encode(json.dumps(asked, separators=(",", ":")).encode()).decode()
    return 401, bearer_challenge(realm, where | {"error": "insufficient_claims", "claims": encoded})


def _declared(claims: Claims) -> bool:
    capabilities = claims.raw.get("xms_cc")
    listed = capabilities.split() if isinstance(capabilities, str) else capabilities
    return isinstance(listed, (list, tuple)) and any(isinstance(one, str) and one.lower() == "cp1" for one in listed)


def _asked(required: Mapping[str, Any] | str) -> Mapping[str, Any]:
    asked: object = required
    if isinstance(required, str):
        if required.isalnum():
            return {"access_token": {"acrs": {"essential": True, "value": required}}}
        try:
            asked = json.loads(required)
        except (ValueError, RecursionError):
            asked = None
    if not isinstance(asked, Mapping) or not asked:
        raise ConfigurationError('required must be claims, such as {"access_token": {"acrs": ...}}, or "c1"')
    return asked
