"""The claims of the tokens that are issued, shaped as each kind of provider shapes them."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from math import ceil
from typing import Any, Final

from ..ledger import IssuedToken, Ledger, TokenKind, fingerprint
from ..settings import Settings
from ..wire.messages import base64url
from .directory import Audience, User
from .keys import KeyRing, SigningKey
from .realms import Realm
from .sessions import BrowserSessions, Party

GRAPH: Final = "https://graph.microsoft.com"
OIDC_SCOPES: Final = frozenset({"openid", "profile", "email", "offline_access"})

_EXPIRED_SINCE: Final = 60.0
_SHORTEST_CAE_LIFE: Final = 20 * 3600.0
_CAE_LIFE_SPREAD: Final = 8 * 3600


def resource_of(scopes: tuple[str, ...]) -> str:
    """Return the resource that scopes ask for: the part before the last slash of the first that has one."""
    api_scopes = [scope for scope in scopes if scope not in OIDC_SCOPES]
    if not api_scopes:
        return GRAPH
    resource, slash, _ = api_scopes[0].rpartition("/")
    if slash:
        return resource
    try:
        # A bare client id asks for a token to the client itself, as B2C apps do.
        return str(uuid.UUID(api_scopes[0]))
    except ValueError:
        return GRAPH


class Mint:
    """Makes tokens and enters them in the ledger."""

    def __init__(self, keys: KeyRing, ledger: Ledger, settings: Settings, sessions: BrowserSessions) -> None:
        self._sessions = sessions
        self._keys = keys
        self._ledger = ledger
        self._settings = settings

    @property
    def published(self) -> tuple[SigningKey, ...]:
        """Return the keys by which its tokens are known."""
        return self._keys.published

    def lifetime(self, audience: Audience) -> float:
        """Return how long an access token will live, in seconds."""
        if audience.expired:
            return 0.0
        if audience.cae and self._settings.revocable:
            spread = int(fingerprint(audience.subject + audience.client_id)[:8], 16) % _CAE_LIFE_SPREAD
            return _SHORTEST_CAE_LIFE + spread
        return self._settings.token_lifetime

    def access_token(self, realm: Realm, audience: Audience) -> tuple[str, IssuedToken]:
        """Issue an access token."""
        tid = self.tid(realm, audience.user)
        claims = self._common_claims(realm, audience, tid) | {
            "aud": audience.resource,
            "iss": realm.access_token_issuer(tid),
            "ver": "2.0" if realm.kind in ("v2", "ciam") else "1.0",
            "appid" if realm.kind in ("v1", "adfs") else "azp": audience.client_id,
            "appidacr" if realm.kind in ("v1", "adfs") else "azpacr": "1",
        }
        if audience.user is None:
            claims |= {"roles": ["Tasks.ReadWrite.All"], "idtyp": "app", "sub": audience.subject}
        else:
            names = (s.rpartition("/")[2] for s in audience.scopes if s not in OIDC_SCOPES)
            claims["scp"] = " ".join(name for name in names if name != ".default") or "user_impersonation"
        if audience.cae:
            claims["xms_cc"] = ["cp1"]
        return self._issue("access", claims, audience, tid, self.lifetime(audience))

    def id_token(self, realm: Realm, audience: Audience, code: str | None = None) -> str:
        """Issue an ID token; one that vouches for a code beside it."""
        tid = self.tid(realm, audience.user)
        claims = self._common_claims(realm, audience, tid) | {
            "aud": audience.client_id,
            "iss": realm.issuer(tid),
            "ver": "1.0" if realm.kind in ("v1", "adfs", "b2c") else "2.0",
        }
        if code is not None:
            claims["c_hash"] = base64url(hashlib.sha256(code.encode()).digest()[:16])
        if audience.nonce:
            claims["nonce"] = audience.nonce
        if audience.context in self._settings.met_contexts:
            claims["acrs"] = [audience.context]
        if audience.sid:
            claims["sid"] = audience.sid
            self._sessions.join(audience.sid, Party(audience.client_id, claims["iss"], claims["sub"]))
        return self._issue("id", claims, audience, tid, max(self.lifetime(audience), 0.0))[0]

    def refresh_token(self, realm: Realm, audience: Audience, text: str) -> None:
        """Enter a refresh token, which is opaque, in the ledger."""
        now = time.time()
        self._enter("refresh", text, uuid.uuid4().hex, audience, self.tid(realm, audience.user), now, None)

    @staticmethod
    def tid(realm: Realm, user: User | None) -> str:
        """Return the tenant that issues: the realm's own, or the user's home where the realm is shared."""
        return user.home_tid if realm.shared and user else realm.tid

    def _common_claims(self, realm: Realm, audience: Audience, tid: str) -> dict[str, Any]:
        subject = audience.subject
        claims: dict[str, Any] = {
            "oid": subject,
            # Entra's subjects are pairwise: another client sees another one.
            "sub": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{subject}:{audience.client_id}")),
            "tid": tid,
            "uti": uuid.uuid4().hex[:22],
        }
        user = audience.user
        if realm.kind in ("adfs", "oidc"):
            del claims["tid"]
        if user and realm.kind in ("v1", "adfs"):
            claims |= {"upn": user.username, "unique_name": user.username, "name": user.name}
        elif user:
            claims |= {"preferred_username": user.username, "name": user.name}
        if realm.kind == "b2c" and realm.policy:
            claims[self._settings.policy_claim] = realm.policy
            claims |= {"emails": [user.username], "sub": subject} if user else {}
        return claims

    def _issue(
        self, kind: TokenKind, claims: dict[str, Any], audience: Audience, tid: str, lifetime: float
    ) -> tuple[str, IssuedToken]:
        now = time.time()
        # Rounded up: a client counts `expires_in` from when the answer reaches it.
        expires_at = int(now - _EXPIRED_SINCE) if audience.expired else ceil(now + lifetime)
        issued_at = int(min(now, expires_at - 1))
        jti = uuid.uuid4().hex
        claims |= {"iat": issued_at, "nbf": issued_at, "exp": expires_at, "jti": jti}
        text = self._keys.sign(claims)
        return text, self._enter(kind, text, jti, audience, tid, now, expires_at)

    def _enter(
        self, kind: TokenKind, text: str, jti: str, audience: Audience, tid: str, now: float, expires_at: float | None
    ) -> IssuedToken:
        return self._ledger.issue(
            IssuedToken(
                jti,
                fingerprint(text),
                audience.subject,
                audience.client_id,
                tid,
                audience.scopes,
                now,
                now + self._settings.refresh_token_lifetime if expires_at is None else expires_at,
                kind,
                audience.cae,
            )
        )


def client_info(realm: Realm, user: User) -> str:
    """Return Entra's `client_info`: the user's id and home tenant, in base64url."""
    uid = f"{user.oid}-{realm.policy}" if realm.kind == "b2c" else user.oid
    utid = realm.tid if realm.kind in ("b2c", "ciam") else user.home_tid
    return base64url(json.dumps({"uid": uid, "utid": utid}).encode())
