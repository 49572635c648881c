"""What comes of a code: an ID token that is verified, and who it is about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from ...errors import ResilientAuthError, StoreUnavailable
from ...verify import Claims
from ...verify.claims import plain
from ..sessions.record import Who
from .party import Party
from .provider import Use

__all__ = ["REQUEST_ERRORS", "acrs_of", "redeemed_by", "who_is"]

#: What a provider may say of a request (RFC 6749, section 4.1.2.1).
REQUEST_ERRORS: Final = frozenset(
    {"invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope", "invalid_client"}
)
#: Bytes of an ID token's claims that are kept; of a larger one, those that say who it is.
_MOST_CLAIMS: Final = 8_192
_WHO: Final = (
    "iss",
    "sub",
    "oid",
    "tid",
    "sid",
    "name",
    "preferred_username",
    "email",
    "login_hint",
    "acrs",
    "tfp",
    "acr",
    "auth_time",
    "roles",
)


def acrs_of(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the authentication contexts that an ID token's claims tell of (Entra)."""
    acrs = raw.get("acrs")
    return tuple(acrs) if isinstance(acrs, (list, tuple)) else (acrs,) if isinstance(acrs, str) else ()


def redeemed_by(
    party: Party, use: Use, flow: Mapping[str, Any], given: Mapping[str, str]
) -> tuple[Claims, Mapping[str, Any] | None] | str:
    """Redeem a code; return whose it is, and MSAL's account, or the error of a denial.

    Raises:
        InvalidToken: The ID token is refused.
        ProviderUnavailable: The code can't be redeemed now, or the ID token not verified.
        ValueError, RuntimeError: It isn't the answer to this flow.
    """
    app = party.apps[use]
    result = app.acquire_token_by_auth_code_flow(dict(flow), dict(given))
    if "error" in result:
        error = str(result["error"])
        return error if error in REQUEST_ERRORS or error == "invalid_grant" else "provider_denied"
    # MSAL sends the nonce's hash (OpenID Connect Core, section 15.5.2).
    nonce = hashlib.sha256(str(flow["nonce"]).encode()).hexdigest()
    account: Mapping[str, Any] | None = None
    try:
        claims = party.verifier.verify(str(result.get("id_token", "")), nonce=nonce)
        account = party.account_of(use, result, claims)
    except ResilientAuthError:
        for left in app.get_accounts():
            if account is None and left.get("local_account_id") == _local(result):
                with suppress(StoreUnavailable):
                    app.remove_account(left)
        raise
    return claims, account


def _local(result: Mapping[str, Any]) -> object:
    claims = result.get("id_token_claims") or {}
    return claims.get("oid", claims.get("sub"))


def who_is(provider: str, claims: Claims, account: Mapping[str, Any] | None) -> Who:
    """Return who a verified ID token is about."""
    kept: dict[str, Any] = plain(claims.raw)
    if len(json.dumps(kept)) > _MOST_CLAIMS:
        kept = {name: kept[name] for name in _WHO if name in kept and len(json.dumps(kept[name])) <= _MOST_CLAIMS // 8}
    return Who(
        provider=provider,
        issuer=claims.issuer,
        subject=claims.subject,
        sid=claims.session_id,
        oid=claims.object_id,
        tenant=claims.tenant_id,
        name=claims.name or claims.username or "",
        username=claims.username or "",
        claims=kept,
        account=account,
    )
